"""A hospital signs a ciphertext that cannot be opened."""

from tests.protocol.federation import with_box

REASON = "The ciphertext of the box from B was altered"


def tell(federation):
    current = federation.keyed()
    seal = federation.planned(current)
    material = with_box(federation, current, text=bytes(80))
    return lambda: federation.upload(current, seal, "A", material=material)
