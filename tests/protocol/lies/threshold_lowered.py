"""The plan opens sums of two."""

from tests.protocol.federation import replanned

REASON = "sums of 3 or more only"


def tell(federation):
    current = federation.keyed()
    federation.planned(current)
    seal = replanned(federation, current, threshold=2)
    material = current.material("A")
    return lambda: federation.hospitals["A"].verify(seal, material, task=current.plan.task)
