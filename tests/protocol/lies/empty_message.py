"""Nothing at all."""

REASON = "has 0 bytes"


def tell(federation):
    return lambda: federation.hospitals["A"].unmask(b"")
