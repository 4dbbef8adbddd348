"""The exported network computes what torch does, and carries its contract."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedlens.errors import FedLensError
from fedlens.explain.grad_cam import grad_cam
from fedlens.export.contract import METADATA_KEY, EdgeContract
from fedlens.export.runtime import OnnxClassifier
from fedlens.export.to_onnx import edge_contract, need, to_onnx
from fedlens.exporting import torch_logits
from fedlens.imaging.preprocess import to_input

from .conftest import Made, made_network, made_pixels


@pytest.mark.parametrize("images", [1, 2, 7])
def test_logits_are_torchs_for_any_number_of_images(made: Made, images: int) -> None:
    pixels = made_pixels(images)

    ours = OnnxClassifier(made.float32).logits(pixels)

    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, torch_logits(made.network, pixels), atol=2e-5)


def test_heat_is_grad_cam_of_every_class(made: Made) -> None:
    pixels = made_pixels(3)
    heat = OnnxClassifier(made.float32).heat(pixels)

    assert heat.shape == (3, 3, 4, 4)
    for number in range(3):
        inputs = to_input(torch.from_numpy(pixels))
        expected = grad_cam(made.network, inputs, torch.full((3,), number)).maps
        grown = F.interpolate(torch.from_numpy(heat[:, number : number + 1]), (32, 32), mode="bilinear")[:, 0]
        peak = grown.amax(dim=(1, 2), keepdim=True)
        torch.testing.assert_close(grown / torch.where(peak > 0, peak, 1.0), expected, atol=1e-4, rtol=0)


def test_batch_norms_are_folded_and_no_folder_of_this_machine_is_named(made: Made) -> None:
    kinds = [node.op_type for node in made.model.graph.node]
    content = made.float32.read_bytes()

    assert "BatchNormalization" not in kinds
    assert kinds.count("Conv") == 10
    assert b"site-packages" not in content and b"/fedlens/" not in content
    assert [output.name for output in made.model.graph.output] == ["logits", "heat"]


def test_the_file_carries_its_contract(made: Made) -> None:
    (entry,) = made.model.metadata_props

    assert entry.key == METADATA_KEY
    held = EdgeContract.model_validate_json(entry.value)
    assert held == made.contract
    assert held.classes == ("benign", "malignant", "other") and held.temperature == 1.7
    assert {"torch", "onnx", "onnxruntime", "fedlens"} <= set(held.versions)
    assert "not a medical device" in made.model.doc_string


def test_a_missing_package_is_named_with_what_installs_it() -> None:
    with pytest.raises(FedLensError, match=r"no_such_package.*fedlens\[onnx\]"):
        need("onnx", "no_such_package")


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "side", "heat"),
    [
        ("efdl-cnn", 32, True),
        ("resnet18", 32, True),
        ("densenet121", 32, True),
        ("efficientnet-b0", 32, True),
        ("vit", 32, False),
    ],
)
def test_every_network_can_be_exported(name: str, side: int, heat: bool, tmp_path: Path) -> None:
    network, contract = made_network(name, side=side)
    promised = edge_contract(contract, modalities=[], temperature=1.0)
    path = tmp_path / "model.onnx"
    path.write_bytes(to_onnx(network, promised).SerializeToString())
    pixels = made_pixels(3, side=side)
    classifier = OnnxClassifier(path)

    np.testing.assert_allclose(classifier.logits(pixels), torch_logits(network, pixels), atol=1e-4)
    assert classifier.has_heat == heat
