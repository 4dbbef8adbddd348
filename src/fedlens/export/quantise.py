"""Eight-bit weights and activations, with ranges taken from training images."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedlens.errors import DataError
from fedlens.export.contract import PIXELS, EdgeContract
from fedlens.export.to_onnx import MAPS, need, with_contract

Pixels = npt.NDArray[np.uint8]

_BATCH = 16


def quantise(model: Any, pixels: Pixels, contract: EdgeContract) -> Any:
    """The same network in 8 bits, as an ``onnx.ModelProto``.

    Weights are rounded for each output channel, activations for each tensor, to ranges that the given
    images reach. The head, and heat, stay in float32: they cost next to nothing and decide.

    Args:
        model: From :func:`~fedlens.export.to_onnx.to_onnx`; not changed.
        pixels: uint8 (N, S, S, channels), prepared; training images, or else their figures are not
            independent of the test.
        contract: Of ``model``; precision and calibration images are put in.

    Raises:
        FedLensError: The packages for ONNX are not installed.
        DataError: No images.
    """
    need("onnx", "onnxruntime")
    import onnx
    from onnxruntime import quantization

    if not len(pixels):
        raise DataError("Eight-bit export needs training images, and there are none.")
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "int8.onnx"
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        quantization.quantize_static(
            copy,
            str(path),
            _Reader(pixels),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            # Unsigned activations with signed weights: what x86 multiplies fast.
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=after(model, MAPS),
        )
        quantised = onnx.load(str(path))
    made = contract.model_copy(update={"precision": "int8", "calibration_images": len(pixels)})
    return with_contract(quantised, made)


def after(model: Any, tensor: str) -> list[str]:
    """Names of all nodes that depend on ``tensor``."""
    reached, names = {tensor}, []
    for node in model.graph.node:
        if reached.intersection(node.input):
            reached.update(node.output)
            names.append(node.name)
    return names


class _Reader:
    """Hands out batches as the quantiser asks for them."""

    def __init__(self, pixels: Pixels) -> None:
        self._batches = iter(np.array_split(pixels, -(-len(pixels) // _BATCH)))

    def get_next(self) -> dict[str, Pixels] | None:
        batch = next(self._batches, None)
        return None if batch is None else {PIXELS: np.ascontiguousarray(batch)}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser tells the root logger to fold batch normalisation first, which the exporter did."""
    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
