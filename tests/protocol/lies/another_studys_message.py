"""A request of another study that the same hospitals take part in."""

import dataclasses

from fedlens.protocol.codec import sign
from fedlens.protocol.messages import KeysRequest

REASON = "has study"


def tell(federation):
    foreign = dataclasses.replace(federation.stamp(), study="6" * 64)
    asked = sign(KeysRequest(foreign), federation.coordinator)
    return lambda: federation.hospitals["A"].keys(asked)
