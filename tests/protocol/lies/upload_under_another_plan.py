"""A hospital uploads under a plan that the coordinator has given up."""

import numpy as np

REASON = "sealed its numbers under another plan"


def tell(federation):
    current = federation.keyed()
    first = federation.planned(current)
    content = federation.upload(current, first, "A")
    federation.planned(current, ranges=np.full(2, 2.0, np.float32))
    return lambda: current.take_upload("A", content)
