"""A hospital's receipt of the round before stands in for one that it did not give."""

from fedlens.protocol.codec import sign
from fedlens.protocol.messages import UnmaskRequest

REASON = "has round"


def tell(federation):
    first = federation.keyed()
    federation.uploaded(first)
    old = first._receipts["D"]
    second = federation.keyed(federation.stamp(2))
    federation.uploaded(second, "ABC")
    lie = UnmaskRequest(second.stamp, tuple("ABCD"), (), {**second._receipts, "D": old}, {}, {})
    return lambda: federation.hospitals["A"].unmask(sign(lie, federation.coordinator))
