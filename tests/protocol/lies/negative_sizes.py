"""Sizes below zero."""

from tests.protocol.federation import replanned

REASON = "not positive"


def tell(federation):
    current = federation.keyed()
    federation.planned(current)
    seal = replanned(federation, current, images=-1)
    material = current.material("A")
    return lambda: federation.hospitals["A"].verify(seal, material, task=current.plan.task)
