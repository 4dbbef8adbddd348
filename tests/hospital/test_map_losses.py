"""Training with explanations: what acts where, and what it changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from fedlens.explain.grad_cam import grad_cam
from fedlens.explain.losses import GRID
from fedlens.explain.quality.localisation import energy
from fedlens.hospital.images import HospitalImages
from fedlens.hospital.map_losses import MapLosses
from fedlens.hospital.optimizer import Optimizer
from fedlens.hospital.regions import ImageRegions
from fedlens.hospital.training import LocalPlan, train
from fedlens.imaging.augment import draw_warps
from fedlens.imaging.preprocess import to_input
from fedlens.models.network import Network
from fedlens.models.parameters import to_parameters
from fedlens.models.registry import build_network
from fedlens.study import AugmentSettings, ExplanationSettings, ModelSettings, TrainingSettings

from .explained import CLASSES, SIZE, outlined_images

TRAINING = TrainingSettings(device="cpu", precision="float32")
STILL = AugmentSettings(flip=0, rotation=0, free_rotation=False, zoom=0, brightness=0, crop=0)


@pytest.fixture
def images(tmp_path: Path) -> HospitalImages:
    return outlined_images(tmp_path / "outlines", 48, outlined=1)


def trained(images: HospitalImages, passes: float = 10, **losses: object) -> Network:
    network = build_network(
        ModelSettings(dropout=0), classes=len(CLASSES), channels=3, image_size=SIZE, seed=0
    )
    map_losses = MapLosses(ExplanationSettings.model_validate(losses), "A", ImageRegions(images))
    plan = LocalPlan(0.0, passes, 8, 2e-3, 2e-3, seed=0)
    acting = map_losses if map_losses.active else None
    train(network, Optimizer(network, TRAINING), images, TRAINING, STILL, plan, map_losses=acting)
    network.eval()
    return network


def maps_of(network: Network, images: HospitalImages) -> torch.Tensor:
    inputs = to_input(torch.from_numpy(images.take(np.arange(len(images)))))
    return grad_cam(network, inputs, torch.from_numpy(images.labels)).maps


def energy_inside(network: Network, images: HospitalImages) -> float:
    masks = torch.from_numpy(ImageRegions(images).outlines(np.arange(len(images))))
    return float(energy(maps_of(network, images), masks).nanmean())


def energy_in_the_body(network: Network, images: HospitalImages) -> float:
    heat = maps_of(network, images).numpy()
    inside = ImageRegions(images).insides(np.arange(len(images)))
    return float((heat * inside).sum() / heat.sum())


def test_outlines_bring_heat_inside_them_on_images_of_another_hospital(
    images: HospitalImages, tmp_path: Path
) -> None:
    other = outlined_images(tmp_path / "other", 24, seed=1, outlined=1)
    plain, taught = trained(images), trained(images, outline_loss=0.5)
    assert energy_inside(taught, other) > 2 * energy_inside(plain, other)


def test_the_field_loss_brings_heat_into_the_body(images: HospitalImages) -> None:
    plain, taught = trained(images, passes=4), trained(images, passes=4, field_loss=2.0)
    assert energy_in_the_body(taught, images) > energy_in_the_body(plain, images)


def test_the_consistency_loss_makes_maps_turn_with_their_images(images: HospitalImages) -> None:
    def likeness(network: Network) -> float:
        inputs = to_input(torch.from_numpy(images.take(np.arange(len(images)))))
        labels = torch.from_numpy(images.labels)
        maps = grad_cam(network, inputs, labels).maps
        mirrored = grad_cam(network, inputs.flip(3).contiguous(), labels).maps.flip(2)
        return float(torch.cosine_similarity(maps.flatten(1), mirrored.flatten(1)).mean())

    assert likeness(trained(images, consistency_loss=2.0)) > likeness(trained(images))


def test_outlines_of_hospitals_that_are_not_named_are_left_alone(images: HospitalImages) -> None:
    settings = ExplanationSettings(outline_loss=1.0, outlines_at=("A",))
    assert MapLosses(settings, "A", ImageRegions(images)).active
    assert not MapLosses(settings, "B", ImageRegions(images)).active
    bare = dataclasses.replace(images, outlines=())
    assert not MapLosses(settings, "A", ImageRegions(bare)).active


def test_without_losses_training_is_what_it_was(images: HospitalImages) -> None:
    assert not MapLosses(ExplanationSettings(), "A", ImageRegions(images)).active
    plain = to_parameters(trained(images, passes=2))
    at_another = to_parameters(trained(images, passes=2, outline_loss=1.0, outlines_at=("B",)))
    assert all(np.array_equal(plain[name], at_another[name]) for name in plain)


def test_two_runs_of_one_seed_are_equal_to_the_bit(images: HospitalImages) -> None:
    losses = {"outline_loss": 0.5, "field_loss": 0.2, "consistency_loss": 0.1}
    first, second = (to_parameters(trained(images, passes=2, **losses)) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_wishes_lie_where_the_outline_lies(images: HospitalImages) -> None:
    losses = MapLosses(ExplanationSettings(outline_loss=1, field_loss=1), "A", ImageRegions(images))
    rows = np.arange(8)
    warps = draw_warps(SIZE, STILL, np.random.default_rng(0), np.zeros(8, np.bool_))
    wishes = losses.wishes(rows, warps)
    assert wishes.outlines is not None and wishes.insides is not None
    assert wishes.outlines.shape == wishes.insides.shape == (8, GRID, GRID)
    masks = ImageRegions(images).outlines(rows)
    assert np.allclose(wishes.outlines.mean((1, 2)), masks.mean((1, 2)), atol=1e-3)
    assert float(wishes.outlines.min()) >= 0 and float(wishes.outlines.max()) <= 1


def test_a_damaged_outline_does_not_stop_training_nor_tell_its_name(images: HospitalImages) -> None:
    file = images.outlines[int(np.flatnonzero(images.labels)[0])]
    assert file is not None
    file.write_bytes(b"no image")
    regions = ImageRegions(images)
    losses = MapLosses(ExplanationSettings(outline_loss=1), "A", regions)
    rows = np.arange(len(images))
    wishes = losses.wishes(
        rows, draw_warps(SIZE, STILL, np.random.default_rng(0), np.zeros(len(rows), np.bool_))
    )
    assert wishes.outlines is not None and wishes.outlines.any()
    assert len(regions.damaged) == 1
