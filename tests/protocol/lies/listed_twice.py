"""A list that names one hospital twice, to look longer than it is."""

from fedlens.protocol.codec import sign
from fedlens.protocol.messages import UnmaskRequest

REASON = "not the plan's participants"


def tell(federation):
    current = federation.keyed()
    federation.uploaded(current)
    receipts = {name: current._receipts[name] for name in "AB"}
    lie = UnmaskRequest(current.stamp, tuple("AABB"), tuple("CD"), receipts, {}, {})
    return lambda: federation.hospitals["A"].unmask(sign(lie, federation.coordinator))
