"""The plan names one hospital twice, to look larger."""

from tests.protocol.federation import replanned

REASON = "participants are not members"


def tell(federation):
    current = federation.keyed()
    federation.planned(current)
    seal = replanned(federation, current, participants=("A", "A", "B", "C"))
    material = current.material("A")
    return lambda: federation.hospitals["A"].verify(seal, material, task=current.plan.task)
