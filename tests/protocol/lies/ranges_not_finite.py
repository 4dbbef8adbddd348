"""Ranges of zero and infinity."""

import numpy as np

REASON = "not positive numbers"


def tell(federation):
    current = federation.keyed()
    seal = federation.planned(current, ranges=np.array([0.0, np.inf], np.float32))
    return lambda: federation.upload(current, seal, "A")
