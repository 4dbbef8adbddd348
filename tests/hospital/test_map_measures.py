"""Figures of single images: each image's own, to the bit, whatever batch it is in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedlens.explain.straying import cell_of
from fedlens.hospital.map_measures import MapMeasures
from fedlens.hospital.regions import ImageRegions
from fedlens.models.network import Network
from fedlens.models.registry import build_network
from fedlens.study import ModelSettings

from .explained import CLASSES, SIZE, outlined_images


@pytest.fixture(scope="module")
def network() -> Network:
    settings = ModelSettings(name="efdl-cnn")
    return build_network(settings, classes=len(CLASSES), channels=3, image_size=SIZE, seed=0).eval()


def test_values_are_each_images_own(tmp_path: Path, network: Network) -> None:
    regions, cell = ImageRegions(outlined_images(tmp_path, 9)), cell_of(network)
    measures = MapMeasures(regions, "grad-cam")
    whole = measures.values(network, np.arange(9), cell)
    assert np.array_equal(np.isfinite(whole["energy"]), regions.outlined)
    assert np.isfinite(whole["strays"]).all() and np.isfinite(whole["equivariance-flip"]).all()
    for row in range(9):
        alone = measures.values(network, np.array([row]), cell)
        assert ("energy" in alone) == regions.outlined[row]
        for name in alone.keys() - {"cost"}:
            assert np.array_equal(alone[name], whole[name][[row]], equal_nan=True), name


def test_without_outlines_nothing_is_located(tmp_path: Path, network: Network) -> None:
    images = outlined_images(tmp_path, 9)
    regions = ImageRegions(images)
    rows = np.flatnonzero(~regions.outlined)
    assert (regions.readable_outlines(rows), regions.damaged) == (None, set())
    assert "energy" not in MapMeasures(regions, "grad-cam").values(network, rows, cell_of(network))
