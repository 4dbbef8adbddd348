"""A hospital that signed one list is asked to unmask over all."""

from fedlens.protocol.codec import sign
from fedlens.protocol.messages import SurvivorsRequest, UnmaskRequest

REASON = "Another list of survivors"


def tell(federation):
    current = federation.keyed()
    federation.uploaded(current)
    receipts = current._receipts
    three = {name: receipts[name] for name in "ABC"}
    asked = SurvivorsRequest(current.stamp, ("A", "B", "C"), ("D",), three)
    federation.hospitals["A"].co_sign(sign(asked, federation.coordinator))
    lie = UnmaskRequest(current.stamp, ("A", "B", "C", "D"), (), dict(receipts), {}, {})
    return lambda: federation.hospitals["A"].unmask(sign(lie, federation.coordinator))
