"""A hospital, or whoever sits on the line, speaks in the coordinator's name."""

from fedlens.protocol.codec import sign
from fedlens.protocol.messages import KeysRequest

REASON = "in the name of coordinator was not signed"


def tell(federation):
    asked = sign(KeysRequest(federation.stamp()), federation.identities["B"])
    return lambda: federation.hospitals["A"].keys(asked)
