"""Masked values are changed on the way."""

import dataclasses

from fedlens.protocol.codec import decode, encode
from fedlens.protocol.messages import SealedUpload

REASON = "not what it signed"


def tell(federation):
    current = federation.keyed()
    seal = federation.planned(current)
    upload = decode(federation.upload(current, seal, "A"), SealedUpload)
    content = encode(dataclasses.replace(upload, values=bytes(len(upload.values))))
    return lambda: current.take_upload("A", content)
