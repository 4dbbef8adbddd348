"""A second answer to one request would be masked with the same keystream."""

REASON = "lies behind"


def tell(federation):
    current = federation.keyed()
    seal = federation.planned(current)
    federation.upload(current, seal, "A")
    return lambda: federation.upload(current, seal, "A")
