"""The weight of an update: images, or fewer where maps leave the body."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from fedlens.hospital.regions import ImageRegions
from fedlens.hospital.weighting import UpdateWeight
from fedlens.models.registry import build_network
from fedlens.study import ExplanationSettings, ModelSettings

from .explained import CLASSES, SIZE, outlined_images

BY_MAPS = ExplanationSettings(weighting="explanations")


def network():
    return build_network(ModelSettings(), classes=len(CLASSES), channels=3, image_size=SIZE, seed=0)


def test_by_images_maps_play_no_part(tmp_path: Path) -> None:
    held_out = outlined_images(tmp_path, 10)
    assert UpdateWeight(ExplanationSettings(), 123, ImageRegions(held_out)).of(network()) == 123


def test_by_explanations_an_update_counts_for_the_share_of_heat_in_the_body(tmp_path: Path) -> None:
    held_out = outlined_images(tmp_path, 20)
    weight = UpdateWeight(BY_MAPS, 1000, ImageRegions(held_out)).of(network())
    assert 1 <= weight < 1000
    # Where the body fills the image no heat can leave it.
    filled = np.random.default_rng(0).integers(90, 255, held_out.pixels.shape, dtype=np.uint8)
    assert (
        UpdateWeight(BY_MAPS, 1000, ImageRegions(dataclasses.replace(held_out, pixels=filled))).of(network())
        > weight
    )


def test_a_hospital_without_held_out_images_counts_by_number(tmp_path: Path) -> None:
    held_out = outlined_images(tmp_path, 4)
    none = dataclasses.replace(held_out, rows=held_out.rows[:0], labels=held_out.labels[:0], records=())
    assert UpdateWeight(BY_MAPS, 50, ImageRegions(none)).of(network()) == 50


def test_weights_and_mode_of_the_network_stay(tmp_path: Path) -> None:
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    UpdateWeight(BY_MAPS, 50, ImageRegions(outlined_images(tmp_path, 8))).of(net)
    assert net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
