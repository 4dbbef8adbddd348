"""A hospital committed to another self-mask seed than it shared: its mask cannot be taken off."""

from tests.protocol.federation import with_false_commitment

REASON = "not the one that it committed to"
ENDS_THE_SUM = True


def tell(federation):
    current = with_false_commitment(federation, "B")
    federation.uploaded(current)
    return lambda: federation.open(current)
