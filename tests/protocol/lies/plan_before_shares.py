"""A plan for a sum that nobody shared seeds for: a drop-out could not be mended."""

REASON = "shared no seeds for"


def tell(federation):
    other = federation.keyed()
    seal = federation.planned(other)
    federation.hospitals["A"].keys(federation.begin().keys_request())
    return lambda: federation.upload(other, seal, "A")
