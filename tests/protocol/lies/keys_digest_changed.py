"""The plan binds other keys than those given."""

from tests.protocol.federation import replanned

REASON = "Keys differ"


def tell(federation):
    current = federation.keyed()
    federation.planned(current)
    seal = replanned(federation, current, keys="0" * 64)
    material = current.material("A")
    return lambda: federation.hospitals["A"].verify(seal, material, task=current.plan.task)
