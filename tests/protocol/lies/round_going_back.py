"""After round 2 the coordinator asks for keys of round 1."""

REASON = "lies behind"


def tell(federation):
    second = federation.keyed(federation.stamp(2))
    federation.uploaded(second)
    asked = federation.begin(federation.stamp(1)).keys_request()
    return lambda: federation.hospitals["A"].keys(asked)
