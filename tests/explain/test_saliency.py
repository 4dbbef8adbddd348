"""Saliency maps, the files they leave, and figures."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from fedlens.errors import ExplanationError, SettingsError
from fedlens.explain.figures import explanation_figure, save_figure
from fedlens.explain.grad_cam import grad_cam
from fedlens.explain.methods import find_method
from fedlens.explain.overlay import overlay
from fedlens.explain.saliency import SaliencyMap, saliency_maps
from fedlens.models.fingerprint import fingerprint
from fedlens.models.registry import build_network
from fedlens.study import ModelSettings

_CLASSES = ("NORMAL", "PNEUMONIA")


def _map(values: np.ndarray | None = None, target: int = 1) -> SaliencyMap:
    grid = np.linspace(0, 1, 32 * 32, dtype=np.float32).reshape(32, 32) if values is None else values
    return SaliencyMap(
        grid, target, (("NORMAL", 0.25), ("PNEUMONIA", 0.75)), "some layer", "f" * 64, "b/person1.jpeg"
    )


def test_maps_of_a_batch() -> None:
    network = build_network(ModelSettings(), classes=2, channels=1, image_size=32, seed=0)
    inputs = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    files = ["a.png", "b.png", "c.png"]
    maps = saliency_maps(
        network,
        inputs,
        classes=_CLASSES,
        files=files,
        image_sha256s=["1", "2", "3"],
        reproduce={"checkpoint": "runs/x"},
    )
    result = grad_cam(network, inputs)
    assert [item.file for item in maps] == files and [item.image_sha256 for item in maps] == ["1", "2", "3"]
    for index, item in enumerate(maps):
        assert np.array_equal(item.values, result.maps[index].numpy())
        assert item.target == int(result.targets[index]) and item.target_name == _CLASSES[item.target]
        assert item.ranked()[0][0] == item.target_name
        assert sum(probability for _, probability in item.probabilities) == pytest.approx(1)
        assert (item.fingerprint, item.layer) == (fingerprint(network), network.layer)
        assert item.empty == bool(result.empty[index])
    with pytest.raises(ExplanationError, match="1 files"):
        saliency_maps(network, inputs, classes=_CLASSES, files=["a.png"])
    with pytest.raises(ExplanationError, match="3 class names"):
        saliency_maps(network, inputs, classes=("a", "b", "c"), files=files)


def test_any_method_by_name() -> None:
    network = build_network(ModelSettings(name="vit"), classes=2, channels=1, image_size=32, seed=0)
    inputs = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    (first, _) = saliency_maps(
        network, inputs, classes=_CLASSES, files=["a", "b"], method="integrated-gradients"
    )
    expected = find_method("integrated-gradients")(network, inputs)
    assert np.array_equal(first.values, expected.maps[0].numpy())
    described = first.description()
    assert (described["method"], described["layer"]) == ("integrated-gradients", "input pixels")
    assert described["settings"]["steps"] == "32"
    with pytest.raises(ExplanationError, match="Choose one of grad-cam, attention-rollout"):
        saliency_maps(network, inputs, classes=_CLASSES, files=["a", "b"], method="score-cam")
    with pytest.raises(SettingsError, match="Did you mean 'grad-cam'"):
        saliency_maps(network, inputs, classes=_CLASSES, files=["a", "b"], method="gradcam")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((3, 4), np.float32), r"\(3, 4\)"),
        (np.zeros((4, 4)), "float64"),
        (np.full((4, 4), 1.5, np.float32), r"outside 0\.\.1"),
        (np.full((4, 4), np.nan, np.float32), r"outside 0\.\.1"),
    ],
)
def test_values_are_checked(values: np.ndarray, message: str) -> None:
    with pytest.raises(ExplanationError, match=message):
        _map(values)


def test_target_is_checked() -> None:
    with pytest.raises(ExplanationError, match="2 classes"):
        _map(target=2)


def test_saved_files(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 70), dtype=np.uint8)
    mask = np.zeros((50, 70), bool)
    mask[10:20, 10:20] = True
    saliency = _map()
    paths = saliency.save(tmp_path / "out", "one", image, mask=mask)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one.json", "one.npy", "one.png"]
    picture = cv2.cvtColor(cv2.imread(str(paths["png"])), cv2.COLOR_BGR2RGB)
    assert np.array_equal(picture, overlay(image, saliency.values, mask=mask))
    assert np.array_equal(np.load(paths["npy"], allow_pickle=False), saliency.values)
    described = json.loads(paths["json"].read_text())
    assert described["target_name"] == "PNEUMONIA" and described["probabilities"]["NORMAL"] == 0.25
    assert described["method"] == "grad-cam" and described["fingerprint"] == "f" * 64


def test_figure_shows_what_it_should_and_leaves_pyplot_alone(tmp_path: Path) -> None:
    image = np.full((40, 60), 128, np.uint8)
    mask = np.zeros((40, 60), bool)
    mask[5:9, 5:9] = True
    figure = explanation_figure(image, _map(), mask=mask, truth="NORMAL", top=1)
    assert plt.get_fignums() == []
    original, heated, bars, colour_bar = figure.axes
    assert "NORMAL" in original.get_title() and "PNEUMONIA" in heated.get_title()
    assert [label.get_text() for label in bars.get_yticklabels()] == ["PNEUMONIA"]
    assert [text.get_text() for text in bars.texts] == ["75.0%"]
    assert colour_bar.get_ylabel()
    assert heated.get_legend() is not None
    path = save_figure(tmp_path / "figure.png", figure)
    assert cv2.imread(str(path)) is not None and len(list(tmp_path.iterdir())) == 1


def test_figure_of_an_empty_map_says_so() -> None:
    figure = explanation_figure(np.zeros((9, 9, 3), np.uint8), _map(np.zeros((4, 4), np.float32)))
    assert "nothing" in figure.axes[1].get_xlabel()


@pytest.mark.real
def test_overlay_of_a_real_lesion_keeps_its_size(shared_data: Path, tmp_path: Path) -> None:
    path = sorted((shared_data / "ham10000" / "images").glob("*.jpg"))[0]
    mask_path = shared_data / "ham10000" / "masks" / f"{path.stem}_segmentation.png"
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    mask = cv2.imread(str(mask_path), cv2.IMREAD_GRAYSCALE) > 127
    paths = _map().save(tmp_path, path.stem, image, mask=mask)
    assert cv2.imread(str(paths["png"])).shape == image.shape
