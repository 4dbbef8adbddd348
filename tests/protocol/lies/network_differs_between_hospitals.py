"""The request holds another network or learning rate than the plan that all hospitals sign."""

REASON = "seals another request"


def tell(federation):
    current = federation.keyed()
    seal = federation.planned(current)
    material = current.material("A")
    return lambda: federation.hospitals["A"].verify(seal, material, task="8" * 64)
