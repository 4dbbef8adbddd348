"""A hospital makes a plan of its own."""

from fedlens.protocol.codec import sign

REASON = "in the name of coordinator was not signed"


def tell(federation):
    current = federation.keyed()
    federation.planned(current)
    seal = sign(current.plan, federation.identities["B"])
    return lambda: federation.upload(current, seal, "A")
