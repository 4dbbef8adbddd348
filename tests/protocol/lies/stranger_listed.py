"""The plan names a hospital that is not in the roster."""

from tests.protocol.federation import replanned

REASON = "participants are not members"


def tell(federation):
    current = federation.keyed()
    federation.planned(current)
    seal = replanned(federation, current, participants=("A", "B", "C", "X"))
    material = current.material("A")
    return lambda: federation.hospitals["A"].verify(seal, material, task=current.plan.task)
