"""The sum of two hospitals is to be opened, where the plan says three."""

from fedlens.protocol.codec import sign
from fedlens.protocol.messages import SurvivorsRequest

REASON = "Only 2 hospitals are left"


def tell(federation):
    current = federation.keyed()
    federation.uploaded(current)
    receipts = {name: current._receipts[name] for name in "AB"}
    lie = SurvivorsRequest(current.stamp, tuple("AB"), tuple("CD"), receipts)
    return lambda: federation.hospitals["A"].co_sign(sign(lie, federation.coordinator))
