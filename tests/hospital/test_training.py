from __future__ import annotations

import numpy as np
import pytest
import torch

from fedlens.errors import BadUpdateError
from fedlens.hospital.images import HospitalImages
from fedlens.hospital.optimizer import Optimizer
from fedlens.hospital.training import LocalPlan, class_weights, train
from fedlens.models.parameters import to_parameters
from fedlens.study import AugmentSettings, TrainingSettings

from .conftest import make_network

SETTINGS = TrainingSettings(device="cpu")


def trained(
    images: HospitalImages, *, seed: int = 0, mu: float = 0.0, rate: float = 1e-3, passes: float = 2.0
):
    network = make_network()
    start = to_parameters(network)
    plan = LocalPlan(0.0, passes, 8, rate, rate, seed=seed, proximal_mu=mu)
    totals = train(network, Optimizer(network, SETTINGS), images, SETTINGS, AugmentSettings(), plan)
    return start, to_parameters(network), totals


def test_two_runs_of_one_seed_are_equal_to_the_bit_and_another_seed_is_not(images: HospitalImages) -> None:
    torch.manual_seed(1)
    _, first, _ = trained(images)
    torch.manual_seed(2)
    _, second, _ = trained(images)
    _, other, _ = trained(images, seed=1)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert any(not np.array_equal(first[name], other[name]) for name in first)


def test_the_global_random_state_and_the_images_are_left_as_they_were(images: HospitalImages) -> None:
    before, pixels = torch.random.get_rng_state(), images.pixels.copy()
    trained(images)
    assert torch.equal(before, torch.random.get_rng_state())
    assert np.array_equal(pixels, images.pixels)


def test_training_learns_and_counts_what_it_saw(images: HospitalImages) -> None:
    _, _, early = trained(images, passes=1.0)
    _, _, late = trained(images, passes=20.0)
    assert early.seen == 50 and late.seen == 1000
    assert late.correct / late.seen > 0.7
    assert late.loss_sum / late.seen < early.loss_sum / early.seen


def test_the_proximal_term_keeps_weights_near_their_start(images: HospitalImages) -> None:
    def distance(mu: float) -> float:
        start, end, _ = trained(images, mu=mu, passes=4.0)
        return float(sum(((end[n] - start[n]) ** 2).sum() for n in start if "weight" in n))

    assert distance(100.0) < 0.7 * distance(0.0)


def test_a_diverged_training_is_refused_with_the_mend(images: HospitalImages) -> None:
    with pytest.raises(BadUpdateError, match="learning_rate"):
        trained(images, rate=1e30)


def test_balanced_class_weights_give_every_class_the_same_total_weight() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    weights = class_weights(labels, 3, TrainingSettings(class_weights="balanced"))
    assert weights is not None
    assert 90 * weights[0] == pytest.approx(float(10 * weights[1]))
    assert weights[2] == 1
