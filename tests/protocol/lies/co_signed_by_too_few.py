"""Two signatures under a list, where the plan asks for three."""

from fedlens.protocol.codec import sign
from fedlens.protocol.messages import UnmaskRequest

REASON = "Only 2 hospitals signed"


def tell(federation):
    current = federation.keyed()
    federation.uploaded(current, "ABC")
    current.close()
    request = current.survivors_request()
    signatures = {name: federation.hospitals[name].co_sign(request) for name in "AB"}
    receipts = dict(current._receipts)
    lie = UnmaskRequest(current.stamp, current.survivors, current.dropped, receipts, signatures, {})
    return lambda: federation.hospitals["A"].unmask(sign(lie, federation.coordinator))
