"""A box with one share only."""

from tests.protocol.federation import with_box

REASON = "The box from B for A is malformed"


def tell(federation):
    current = federation.keyed()
    seal = federation.planned(current)
    material = with_box(federation, current, text=bytes(48))
    return lambda: federation.upload(current, seal, "A", material=material)
