"""More totals than the plan has."""

import dataclasses

from fedlens.protocol.codec import decode, encode
from fedlens.protocol.messages import SealedUpload

REASON = "An upload has"


def tell(federation):
    current = federation.keyed()
    seal = federation.planned(current)
    upload = decode(federation.upload(current, seal, "A"), SealedUpload)
    content = encode(dataclasses.replace(upload, totals=bytes(upload.totals) + bytes(8)))
    return lambda: current.take_upload("A", content)
