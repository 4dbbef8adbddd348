"""A hospital signs another's public keys as its own."""

import dataclasses

from fedlens.protocol.codec import decode, sign
from fedlens.protocol.messages import Keys, SharesRequest

REASON = "keys for this sum are the same"


def tell(federation):
    current = federation.begin()
    request = current.keys_request()
    keys = {name: hospital.keys(request) for name, hospital in federation.hospitals.items()}
    copied = dataclasses.replace(decode(keys["D"][:-64], Keys), hospital="C")
    keys["C"] = sign(copied, federation.identities["C"])
    asked = sign(SharesRequest(current.stamp, keys), federation.coordinator)
    return lambda: federation.hospitals["A"].shares(asked)
