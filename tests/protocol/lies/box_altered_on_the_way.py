"""A ciphertext is changed by one bit."""

import dataclasses

from fedlens.protocol.codec import decode, encode
from fedlens.protocol.messages import Material

REASON = "in the name of B was not signed by it"


def tell(federation):
    current = federation.keyed()
    seal = federation.planned(current)
    given = decode(current.material("A"), Material)
    box = bytearray(given.boxes["B"])
    box[-100] ^= 1
    material = encode(dataclasses.replace(given, boxes={**given.boxes, "B": bytes(box)}))
    return lambda: federation.upload(current, seal, "A", material=material)
