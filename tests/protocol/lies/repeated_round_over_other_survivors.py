"""A round is repeated in a new segment without D: the difference of both sums would be D's update."""

REASON = "was opened over A, B, C, D"


def tell(federation):
    first = federation.keyed()
    federation.uploaded(first)
    federation.open(first)
    again = federation.keyed(federation.stamp(1, segment=2), "ABC")
    federation.uploaded(again)
    again.close()
    asked = again.unmask_request()
    return lambda: federation.hospitals["A"].unmask(asked)
