"""A signature under the list that its hospital did not make."""

from fedlens.protocol.codec import sign
from fedlens.protocol.messages import CoSignature, UnmaskRequest

REASON = "in the name of C was not signed by it"


def tell(federation):
    current = federation.keyed()
    federation.uploaded(current, "ABC")
    current.close()
    request = current.survivors_request()
    signatures = {name: federation.hospitals[name].co_sign(request) for name in "AB"}
    made_up = CoSignature(current.stamp, "C", current.survivors, current.dropped)
    signatures["C"] = sign(made_up, federation.coordinator)
    receipts = dict(current._receipts)
    lie = UnmaskRequest(current.stamp, current.survivors, current.dropped, receipts, signatures, {})
    return lambda: federation.hospitals["A"].unmask(sign(lie, federation.coordinator))
