"""A hospital that was declared dropped uploads after all: with its mask key known, it would lie open."""

REASON = "too late: it was declared dropped"


def tell(federation):
    current = federation.keyed()
    seal = federation.uploaded(current, "ABC")
    late = federation.upload(current, seal, "D")
    current.close()
    return lambda: current.take_upload("D", late)
