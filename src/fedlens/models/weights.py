"""Weights as the bytes of a file, without torch: whoever holds the arrays knows the file's digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

Arrays = Mapping[str, npt.NDArray[Any]]


def weights_content(arrays: Arrays) -> bytes:
    """A network's arrays by name as a safetensors file; the same whatever the mapping's order."""
    content: bytes = save({name: np.asarray(array, order="C") for name, array in arrays.items()})
    return content


def weights_digest(arrays: Arrays) -> str:
    """SHA-256 of :func:`weights_content`, hexadecimal, as a checkpoint's contract has it."""
    return hashlib.sha256(weights_content(arrays)).hexdigest()
