"""A hospital sends other shares than it committed to, so that its masks could never be taken off."""

from tests.protocol.federation import text_for, with_box

REASON = "not those that it committed to"


def tell(federation):
    current = federation.keyed()
    seal = federation.planned(current)
    text, kem = text_for(federation, "B", "A", bytes(64))
    material = with_box(federation, current, text=text, kem=kem)
    return lambda: federation.upload(current, seal, "A", material=material)
