"""The next round starts from the same weights without D: the difference of both sums would be D's update."""

REASON = "was opened over A, B, C, D"


def tell(federation):
    def uploaded(current, who):
        seal = federation.planned(current)
        for name in who:
            current.take_upload(name, federation.upload(current, seal, name, model="weights"))

    first = federation.keyed()
    uploaded(first, "ABCD")
    federation.open(first)
    second = federation.keyed(federation.stamp(2))
    uploaded(second, "ABC")
    second.close()
    federation.co_sign(second)
    asked = second.unmask_request()
    return lambda: federation.hospitals["A"].unmask(asked)
