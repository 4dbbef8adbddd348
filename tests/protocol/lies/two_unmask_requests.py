"""A sum is to be opened a second time."""

REASON = "opened already"


def tell(federation):
    current = federation.keyed()
    federation.uploaded(current)
    federation.open(current)
    again = current.unmask_request()
    return lambda: federation.hospitals["A"].unmask(again)
