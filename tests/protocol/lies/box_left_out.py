"""One participant's shares are held back, so that its masks could not be taken off."""

import dataclasses

from fedlens.protocol.codec import decode, encode
from fedlens.protocol.messages import Material

REASON = "not just those of the plan's participants"


def tell(federation):
    current = federation.keyed()
    seal = federation.planned(current)
    given = decode(current.material("A"), Material)
    material = encode(dataclasses.replace(given, boxes={name: given.boxes[name] for name in "BC"}))
    return lambda: federation.upload(current, seal, "A", material=material)
