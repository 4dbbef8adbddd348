"""The plan sums more values than the network has."""

REASON = "The plan sums 30 values"


def tell(federation):
    current = federation.keyed()
    seal = federation.planned(current, sizes=[12, 18])
    return lambda: federation.upload(current, seal, "A")
