"""The plan has ranges for more arrays than the network: one array would be scaled by another's."""

import numpy as np

REASON = "The plan sums 24 values of 3 arrays"


def tell(federation):
    current = federation.keyed()
    seal = federation.planned(current, ranges=np.full(3, 4.0, np.float32))
    return lambda: federation.upload(current, seal, "A")
