"""Seeds are to be shared among fewer hospitals than a sum takes."""

from fedlens.protocol.codec import sign
from fedlens.protocol.messages import SharesRequest

REASON = "Only 2 hospitals"


def tell(federation):
    current = federation.begin()
    request = current.keys_request()
    keys = {name: federation.hospitals[name].keys(request) for name in "AB"}
    asked = sign(SharesRequest(current.stamp, keys), federation.coordinator)
    return lambda: federation.hospitals["A"].shares(asked)
