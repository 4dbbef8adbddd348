"""One hospital is listed as survivor and as dropped, which would reveal both of its seeds."""

from fedlens.protocol.codec import sign
from fedlens.protocol.messages import UnmaskRequest

REASON = "D is listed as survivor and as dropped"


def tell(federation):
    current = federation.keyed()
    federation.uploaded(current)
    lie = UnmaskRequest(current.stamp, tuple("ABCD"), ("D",), dict(current._receipts), {}, {})
    return lambda: federation.hospitals["A"].unmask(sign(lie, federation.coordinator))
