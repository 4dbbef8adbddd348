"""A is told that D dropped out; B, C and D that nobody did: the difference would be D's update."""

from fedlens.protocol.codec import sign
from fedlens.protocol.messages import UnmaskRequest

REASON = "not co-signed"


def tell(federation):
    current = federation.keyed()
    federation.uploaded(current)
    current.close()
    receipts = current._receipts
    honest = current.unmask_request()
    for name in "BCD":
        federation.hospitals[name].unmask(honest)
    three = {name: receipts[name] for name in "ABC"}
    lie = UnmaskRequest(current.stamp, ("A", "B", "C"), ("D",), three, {}, {})
    return lambda: federation.hospitals["A"].unmask(sign(lie, federation.coordinator))
