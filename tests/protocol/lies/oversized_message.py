"""A message of a hundred megabytes where some hundred bytes are expected."""

REASON = "has 100000000 bytes"


def tell(federation):
    content = bytes(100_000_000)
    return lambda: federation.hospitals["A"].keys(content)
