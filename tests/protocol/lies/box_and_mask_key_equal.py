"""A hospital uses one key pair for its box and its masks, so that dropping out would open its boxes."""

import dataclasses

from fedlens.protocol.codec import decode, sign
from fedlens.protocol.messages import Keys

REASON = "The two keys of C are the same"


def tell(federation):
    current = federation.begin()
    keys = decode(federation.hospitals["C"].keys(current.keys_request())[:-64], Keys)
    one = sign(dataclasses.replace(keys, mask_key=keys.box_key), federation.identities["C"])
    return lambda: current.take_keys("C", one)
