"""Eight bits: close to the original, the head left alone, and nothing without images."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from fedlens.errors import DataError
from fedlens.export.quantise import after, quantise
from fedlens.export.runtime import OnnxClassifier
from fedlens.export.to_onnx import MAPS

from .conftest import Made, made_pixels


def test_logits_stay_near(made: Made) -> None:
    pixels = made_pixels(24)
    exact, rounded = (OnnxClassifier(path).logits(pixels) for path in (made.float32, made.int8))

    assert not np.array_equal(exact, rounded)
    assert np.abs(exact - rounded).max() < 0.1 * np.abs(exact - exact.mean(axis=0)).max() + 0.05


def test_convolutions_have_eight_bits_and_the_head_has_not(made: Made) -> None:
    model = onnx.load(made.int8)
    made_by = {output: node for node in model.graph.node for output in node.output}
    quantised = {
        node.op_type
        for node in model.graph.node
        if any(name in made_by and made_by[name].op_type == "DequantizeLinear" for name in node.input)
    }
    heads = [node for node in model.graph.node if node.op_type == "Gemm"]

    assert "Conv" in quantised and heads
    assert all(made_by[node.input[0]].op_type != "DequantizeLinear" for node in heads)
    assert made.int8.stat().st_size < made.float32.stat().st_size / 2


def test_the_contract_says_so(made: Made) -> None:
    contract = OnnxClassifier(made.int8).contract

    assert contract.precision == "int8" and contract.calibration_images == 40
    assert contract.model_copy(update={"precision": "float32", "calibration_images": 0}) == made.contract


def test_heat_survives(made: Made) -> None:
    pixels = made_pixels(6)
    exact, rounded = (OnnxClassifier(path).heat(pixels) for path in (made.float32, made.int8))

    assert np.corrcoef(exact.ravel(), rounded.ravel())[0, 1] > 0.9


def test_after_follows_the_graph(made: Made) -> None:
    names = after(made.model, MAPS)
    kinds = {node.op_type for node in made.model.graph.node if node.name in names}

    assert "Conv" not in kinds and {"ReduceMean", "Gemm"} <= kinds


def test_no_images_no_ranges(made: Made) -> None:
    with pytest.raises(DataError, match="training images"):
        quantise(made.model, made_pixels(0), made.contract)
