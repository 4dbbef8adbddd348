"""A hospital signs another's mask key as its own; the coordinator names it."""

import dataclasses

from fedlens.protocol.codec import decode, sign
from fedlens.protocol.messages import Keys

REASON = "C has signed another hospital's keys"


def tell(federation):
    current = federation.begin()
    request = current.keys_request()
    current.take_keys("A", federation.hospitals["A"].keys(request))
    honest = decode(current._keys["A"][:-64], Keys)
    keys = decode(federation.hospitals["C"].keys(request)[:-64], Keys)
    copied = sign(dataclasses.replace(keys, mask_key=honest.mask_key), federation.identities["C"])
    return lambda: current.take_keys("C", copied)
