"""One digest by which two sides know that they hold the same architecture."""

from __future__ import annotations

import hashlib
import json

from fedlens.models.network import Network


def fingerprint(network: Network) -> str:
    """SHA-256 over name, classes, channels, image size and every state name, shape and dtype.

    Weights do not enter it; names are sorted, so the order of layers in memory does not either.
    """
    state = sorted(
        (name, list(tensor.shape), str(tensor.dtype)) for name, tensor in network.state_dict().items()
    )
    content = [network.name, network.classes, network.channels, network.image_size, state]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
