"""The unmask request of the round before comes again in this one."""

REASON = "uploaded nothing for round 1"


def tell(federation):
    first = federation.keyed()
    federation.uploaded(first)
    first.close()
    old = first.unmask_request()
    second = federation.keyed(federation.stamp(2))
    federation.uploaded(second)
    return lambda: federation.hospitals["A"].unmask(old)
