"""A norm bound that no update can keep."""

from tests.protocol.federation import replanned

REASON = "norm bound"


def tell(federation):
    current = federation.keyed()
    federation.planned(current)
    seal = replanned(federation, current, norm_bound=-1.0)
    material = current.material("A")
    return lambda: federation.hospitals["A"].verify(seal, material, task=current.plan.task)
