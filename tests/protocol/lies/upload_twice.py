"""A hospital's upload comes twice, and would count twice."""

REASON = "came twice"


def tell(federation):
    current = federation.keyed()
    seal = federation.planned(current)
    content = federation.upload(current, seal, "A")
    current.take_upload("A", content)
    return lambda: current.take_upload("A", content)
