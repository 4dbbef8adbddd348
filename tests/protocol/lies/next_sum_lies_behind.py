"""Keys for a sum that is over are to be made."""

from tests.protocol.federation import replanned

REASON = "next sum lies behind"


def tell(federation):
    current = federation.keyed()
    federation.planned(current)
    seal = replanned(federation, current, next_round=0, next_step="train")
    material = current.material("A")
    return lambda: federation.hospitals["A"].verify(seal, material, task=current.plan.task)
