"""A hospital is shown other keys as its own."""

from fedlens.protocol.codec import sign
from fedlens.protocol.messages import SharesRequest

REASON = "not its own"


def tell(federation):
    current = federation.begin()
    request = current.keys_request()
    keys = {name: hospital.keys(request) for name, hospital in federation.hospitals.items()}
    federation.hospitals["A"].keys(request)
    asked = sign(SharesRequest(current.stamp, keys), federation.coordinator)
    return lambda: federation.hospitals["A"].shares(asked)
