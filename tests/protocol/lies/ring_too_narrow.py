"""The ring wraps around, so that the sum tells of single values."""

from tests.protocol.federation import replanned

REASON = "needs just 18 bits"


def tell(federation):
    current = federation.keyed()
    federation.planned(current)
    seal = replanned(federation, current, ring_bits=17)
    material = current.material("A")
    return lambda: federation.hospitals["A"].verify(seal, material, task=current.plan.task)
