"""One small hospital with random images, for tests of its training and its messages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedlens.hospital.hospital import Hospital
from fedlens.hospital.images import HospitalImages
from fedlens.models.network import Network
from fedlens.models.registry import build_network
from fedlens.study import ModelSettings, Study

SIZE = 32
CLASSES = 3


def make_images(count: int, seed: int = 0) -> HospitalImages:
    """Images whose class shows as brightness, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    pixels = rng.normal(60 + 60 * labels[:, None, None, None], 20, (count, SIZE, SIZE, 3))
    return HospitalImages(
        pixels=np.clip(pixels, 0, 255).astype(np.uint8),
        rows=np.arange(count),
        labels=labels,
        free_rotation=np.zeros(count, np.bool_),
        records=(),
    )


def make_network(seed: int = 0) -> Network:
    return build_network(ModelSettings(), classes=CLASSES, channels=3, image_size=SIZE, seed=seed)


@pytest.fixture
def images() -> HospitalImages:
    return make_images(50)


@pytest.fixture
def study() -> Study:
    return Study.model_validate(
        {
            "name": "test",
            "data": {"folder": "."},
            "preprocess": {"size": SIZE},
            "training": {"passes": 2, "batch_size": 8, "device": "cpu"},
            "federation": {"rounds": 4},
        }
    )


@pytest.fixture
def hospital(study: Study, tmp_path: Path) -> Hospital:
    splits = {"train": make_images(50), "validation": make_images(20, seed=1)}
    return Hospital("A", study, make_network(), splits, tmp_path / "A", batch_size=8)
