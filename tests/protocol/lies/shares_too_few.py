"""A hospital gives shares of some survivors only."""

import dataclasses

from fedlens.protocol.codec import decode, sign
from fedlens.protocol.messages import Unmasking

REASON = "64 bytes as 4 shares"


def tell(federation):
    current = federation.keyed()
    federation.uploaded(current)
    current.close()
    answer = federation.hospitals["B"].unmask(current.unmask_request())
    short = dataclasses.replace(decode(answer[:-64], Unmasking), self_shares=bytes(64))
    return lambda: current.take_unmasking("B", sign(short, federation.identities["B"]))
