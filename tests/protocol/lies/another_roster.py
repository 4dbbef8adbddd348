"""A request under a roster that this hospital has not signed."""

import dataclasses

from fedlens.protocol.codec import sign
from fedlens.protocol.messages import KeysRequest

REASON = "has roster"


def tell(federation):
    foreign = dataclasses.replace(federation.stamp(), roster="6" * 64)
    asked = sign(KeysRequest(foreign), federation.coordinator)
    return lambda: federation.hospitals["A"].keys(asked)
