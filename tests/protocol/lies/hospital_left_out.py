"""This hospital is asked for numbers under a plan that it is no part of."""

from tests.protocol.federation import replanned

REASON = "participants are not members"


def tell(federation):
    current = federation.keyed()
    federation.planned(current)
    seal = replanned(federation, current, participants=("B", "C", "D"))
    material = current.material("A")
    return lambda: federation.hospitals["A"].verify(seal, material, task=current.plan.task)
