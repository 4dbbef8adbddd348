"""B sends what A signed."""

REASON = "in the name of B was not signed by it"


def tell(federation):
    current = federation.keyed()
    seal = federation.planned(current)
    content = federation.upload(current, seal, "A")
    return lambda: current.take_upload("B", content)
