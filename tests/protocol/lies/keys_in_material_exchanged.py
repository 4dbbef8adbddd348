"""The keys beside the plan are not those that seeds were shared for."""

import dataclasses

from fedlens.protocol.codec import decode, encode
from fedlens.protocol.messages import Material

REASON = "Keys differ"


def tell(federation):
    current = federation.keyed()
    seal = federation.planned(current)
    given = decode(current.material("A"), Material)
    fresh = federation.hospitals["C"].keys(federation.begin().keys_request())
    material = encode(dataclasses.replace(given, keys={**given.keys, "C": fresh}))
    return lambda: federation.upload(current, seal, "A", material=material)
