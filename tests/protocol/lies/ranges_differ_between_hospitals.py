"""One hospital is given fine ranges and the others coarse ones, so that its values stand out of the sum."""

import numpy as np

from fedlens.protocol.codec import decode, sign
from fedlens.protocol.messages import SealedUpload, UnmaskRequest

REASON = "D sealed its numbers under another plan"


def tell(federation):
    current = federation.keyed()
    coarse = federation.planned(current)
    uploads = {name: federation.upload(current, coarse, name) for name in "ABC"}
    fine = federation.planned(current, ranges=np.full(2, 0.001, np.float32))
    uploads["D"] = federation.upload(current, fine, "D")
    receipts = {name: decode(content, SealedUpload).receipt for name, content in uploads.items()}
    lie = UnmaskRequest(current.stamp, tuple("ABCD"), (), receipts, {}, {})
    return lambda: federation.hospitals["A"].unmask(sign(lie, federation.coordinator))
