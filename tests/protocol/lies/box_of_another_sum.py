"""Shares of an earlier sum."""

from tests.protocol.federation import with_box

REASON = "has round"


def tell(federation):
    current = federation.keyed()
    seal = federation.planned(current)
    material = with_box(federation, current, stamp=federation.stamp(9))
    return lambda: federation.upload(current, seal, "A", material=material)
