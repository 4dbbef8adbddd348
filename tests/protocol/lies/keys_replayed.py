"""Keys of an earlier round, whose secrets the coordinator may know by now, come again."""

from fedlens.protocol.codec import sign
from fedlens.protocol.messages import SharesRequest

REASON = "A message of C has round '1', not '2'"


def tell(federation):
    first = federation.begin()
    old = federation.hospitals["C"].keys(first.keys_request())
    second = federation.begin(federation.stamp(2))
    request = second.keys_request()
    keys = {name: hospital.keys(request) for name, hospital in federation.hospitals.items()} | {"C": old}
    asked = sign(SharesRequest(second.stamp, keys), federation.coordinator)
    return lambda: federation.hospitals["A"].shares(asked)
