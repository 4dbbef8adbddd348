"""Masked values are cut off."""

import dataclasses

from fedlens.protocol.codec import decode, encode
from fedlens.protocol.messages import SealedUpload

REASON = "An upload has"


def tell(federation):
    current = federation.keyed()
    seal = federation.planned(current)
    upload = decode(federation.upload(current, seal, "A"), SealedUpload)
    content = encode(dataclasses.replace(upload, values=upload.values[:-1]))
    return lambda: current.take_upload("A", content)
