"""The plan asks for coarser values than the study says."""

REASON = "asks for values of 8 bits"


def tell(federation):
    current = federation.keyed()
    seal = federation.planned(current, value_bits=8)
    return lambda: federation.upload(current, seal, "A")
