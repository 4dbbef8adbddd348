"""A hospital signs a point that gives all who agree with it zeros: nobody could go on with such keys."""

import dataclasses

from fedlens.protocol.codec import decode, sign
from fedlens.protocol.messages import Keys

REASON = "A public key of C cannot be used"


def tell(federation):
    current = federation.begin()
    content = federation.hospitals["C"].keys(current.keys_request())
    keys = decode(content[:-64], Keys)
    low = dataclasses.replace(keys, mask_key=bytes(32) + keys.mask_key[32:])
    content = sign(low, federation.identities["C"])
    return lambda: current.take_keys("C", content)
