"""A hospital gives the share that another one holds."""

from tests.protocol.federation import with_shares_of

REASON = "B sent a false share of A's seed"


def tell(federation):
    current = federation.keyed()
    federation.uploaded(current)
    current.close()
    answer = with_shares_of(federation, current, teller="B", index=3)
    return lambda: current.take_unmasking("B", answer)
