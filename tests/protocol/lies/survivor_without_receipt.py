"""A hospital that never uploaded is counted as a survivor, to make a small sum look large."""

from fedlens.protocol.codec import sign
from fedlens.protocol.messages import UnmaskRequest

REASON = "Receipts are not just those"


def tell(federation):
    current = federation.keyed()
    federation.uploaded(current, "ABC")
    lie = UnmaskRequest(current.stamp, tuple("ABCD"), (), dict(current._receipts), {}, {})
    return lambda: federation.hospitals["A"].unmask(sign(lie, federation.coordinator))
