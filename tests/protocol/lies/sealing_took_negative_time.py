"""A time below zero."""

import dataclasses

from fedlens.protocol.codec import decode, encode
from fedlens.protocol.messages import SealedUpload

REASON = "took -1.0 seconds"


def tell(federation):
    current = federation.keyed()
    seal = federation.planned(current)
    upload = decode(federation.upload(current, seal, "A"), SealedUpload)
    content = encode(dataclasses.replace(upload, sealing_seconds=-1.0))
    return lambda: current.take_upload("A", content)
