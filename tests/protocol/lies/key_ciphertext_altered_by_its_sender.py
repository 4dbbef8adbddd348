"""A hospital signs a key ciphertext that gives another secret."""

from tests.protocol.federation import with_box

REASON = "The ciphertext of the box from B was altered"


def tell(federation):
    current = federation.keyed()
    seal = federation.planned(current)
    material = with_box(federation, current, kem=bytes(1088))
    return lambda: federation.upload(current, seal, "A", material=material)
