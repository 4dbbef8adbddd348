"""A hospital that drops out left a deposit that nobody can open."""

REASON = "The ciphertext of A's deposit was altered"
ENDS_THE_SUM = True


def tell(federation):
    current = federation.keyed()
    current._deposits["A"] = bytes(len(current._deposits["A"]))
    federation.uploaded(current, "BCD")
    return lambda: federation.open(current)
