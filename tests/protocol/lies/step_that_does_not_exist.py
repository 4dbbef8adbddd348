"""The next sum has a step that nobody knows."""

from tests.protocol.federation import replanned

REASON = "There is no step"


def tell(federation):
    current = federation.keyed()
    federation.planned(current)
    seal = replanned(federation, current, next_round=2, next_step="peek")
    material = current.material("A")
    return lambda: federation.hospitals["A"].verify(seal, material, task=current.plan.task)
