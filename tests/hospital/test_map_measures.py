"""Figures of single images: each image's own, to the bit, whatever batch it is in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedlens.hospital.map_measures import MapMeasures
from fedlens.models.network import Network
from fedlens.models.registry import build_network
from fedlens.study import ModelSettings

from .explained import CLASSES, SIZE, outlined_images


@pytest.fixture(scope="module")
def network() -> Network:
    settings = ModelSettings(name="efdl-cnn")
    return build_network(settings, classes=len(CLASSES), channels=3, image_size=SIZE, seed=0).eval()


def test_values_are_each_images_own(tmp_path: Path, network: Network) -> None:
    measures = MapMeasures(outlined_images(tmp_path, 9), "grad-cam")
    whole = measures.values(network, np.arange(9))
    assert np.array_equal(np.isfinite(whole["energy"]), measures.regions.outlined)
    assert np.isfinite(whole["strays"]).all() and np.isfinite(whole["equivariance-flip"]).all()
    for row in range(9):
        alone = measures.values(network, np.array([row]))
        assert ("energy" in alone) == measures.regions.outlined[row]
        for name in alone.keys() - {"cost"}:
            assert np.array_equal(alone[name], whole[name][[row]], equal_nan=True), name


def test_a_damaged_outline_counts_as_none_and_is_named(tmp_path: Path) -> None:
    images = outlined_images(tmp_path, 9)
    measures = MapMeasures(images, "grad-cam")
    damaged, *kept = np.flatnonzero(measures.regions.outlined)
    file = images.outlines[damaged]
    assert file is not None
    file.write_bytes(b"no image")
    masks, named = measures.outlines(np.arange(9))
    assert masks is not None and masks.shape == (9, SIZE, SIZE)
    assert np.flatnonzero(masks.any((1, 2))).tolist() == kept
    assert named == [images.records[damaged].image_id]


def test_without_outlines_nothing_is_located(tmp_path: Path, network: Network) -> None:
    images = outlined_images(tmp_path, 9)
    measures = MapMeasures(images, "grad-cam")
    rows = np.flatnonzero(~measures.regions.outlined)
    assert measures.outlines(rows) == (None, [])
    assert "energy" not in measures.values(network, rows)
