"""A hospital that is listed as dropped is asked for shares."""

REASON = "not listed as a survivor"


def tell(federation):
    current = federation.keyed()
    seal = federation.uploaded(current, "ABC")
    federation.upload(current, seal, "D")
    current.close()
    federation.co_sign(current)
    asked = current.unmask_request()
    return lambda: federation.hospitals["D"].unmask(asked)
