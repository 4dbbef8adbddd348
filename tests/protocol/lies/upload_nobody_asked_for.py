"""A member that is no participant of this sum uploads."""

REASON = "not asked for"


def tell(federation):
    current = federation.keyed(who="ABC")
    federation.planned(current)
    return lambda: current.take_upload("D", b"")
