"""The same figures as Captum and Quantus give for the same network, images and changes.

Quantus (LGPL) is no dependency, not even of development: its tests run where someone installed it.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedlens.explain.quality import Explained, faithfulness, localisation, robustness
from fedlens.explain.quality.explained import mean_colour
from fedlens.explain.quality.road import fill_in
from fedlens.models.network import Network


class _Probabilities(torch.nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs).softmax(1)


@pytest.fixture
def captum() -> Any:
    return pytest.importorskip("captum.metrics", reason="Captum is not installed")


@pytest.fixture
def quantus() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("quantus", reason="Quantus is not installed")


def test_infidelity_is_captums(captum: Any, explained: Explained) -> None:
    squares = iter(faithfulness.squares(explained.maps.shape[2]))

    def change(inputs: Tensor) -> tuple[Tensor, Tensor]:
        square = next(squares)
        painted = torch.where(square, mean_colour(inputs), inputs)
        return square.expand_as(inputs).float(), painted

    expected = captum.infidelity(
        _Probabilities(explained.network),
        change,
        explained.inputs,
        explained.maps[:, None],
        target=explained.targets,
        n_perturb_samples=faithfulness.SQUARES,
        max_examples_per_batch=len(explained.inputs),
        normalize=True,
    )
    found = faithfulness.infidelity(explained)
    assert found.max() > 1e-3, "a comparison of zeros proves nothing"
    assert torch.allclose(found, expected.double(), atol=1e-6)


def test_max_sensitivity_is_captums(captum: Any, explained: Explained) -> None:
    noises = iter(robustness.noises(tuple(explained.inputs.shape[1:])))
    expected = captum.sensitivity_max(
        # In a tuple: of a bare tensor Captum would take the images for several inputs of one.
        lambda inputs: (explained.explain(_only(inputs), explained.targets)[:, None],),
        explained.inputs,
        lambda inputs, radius: (_only(inputs) + next(noises),),
        perturb_radius=robustness.RADIUS,
        n_perturb_samples=robustness.CHANGES,
        max_examples_per_batch=len(explained.inputs),
    )
    found = robustness.max_sensitivity(explained)
    assert found.min() > 1e-4
    assert torch.allclose(found, expected.double(), atol=1e-6)


def _only(inputs: Any) -> Tensor:
    """Captum hands inputs over now as a tensor, now in a tuple."""
    tensor: Tensor = inputs[0] if isinstance(inputs, tuple) else inputs
    return tensor


def _arrays(explained: Explained) -> dict[str, Any]:
    assert explained.masks is not None
    keep = explained.targets == 1
    return {
        "model": explained.network,
        "x_batch": explained.inputs[keep].numpy(),
        "y_batch": explained.targets[keep].numpy(),
        "a_batch": explained.maps[keep][:, None].numpy(),
        "s_batch": explained.masks[keep][:, None].numpy(),
        "channel_first": True,
    }


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("PointingGame", localisation.pointing),
        ("RelevanceMassAccuracy", localisation.energy),
        ("RelevanceRankAccuracy", localisation.rank),
    ],
)
def test_localisation_is_quantus(quantus: Any, explained: Explained, name: str, ours: Any) -> None:
    metric = getattr(quantus, name)(abs=False, normalise=False, disable_warnings=True)
    expected = np.array(metric(**_arrays(explained)), np.float64)
    keep = explained.targets == 1
    assert explained.masks is not None
    found = ours(explained.maps[keep], explained.masks[keep])
    assert found.numpy() == pytest.approx(expected, abs=1e-6)


def test_deletion_is_quantus_pixel_flipping(quantus: Any, explained: Explained) -> None:
    keep = explained.targets == 1
    places = explained.maps[0].numel()
    # Quantus takes tied places in reading order; without ties there is one order only.
    ties = torch.linspace(0, 1e-3, places)[torch.randperm(places)].view_as(explained.maps[0])
    maps = (explained.maps[keep] + ties) / 1.001
    metric = quantus.PixelFlipping(
        features_in_step=places // 16, perturb_baseline=0.0, abs=False, normalise=False, disable_warnings=True
    )
    expected = np.array(metric(**{**_arrays(explained), "a_batch": maps[:, None].numpy()}, softmax=True))
    inputs = explained.inputs[keep]
    found = faithfulness.curve(
        explained.network,
        inputs,
        torch.zeros_like(inputs),
        explained.targets[keep],
        faithfulness.heat_ranks(maps),
        16,
    )
    assert found[:, 1:].numpy() == pytest.approx(expected, abs=1e-4)


def test_filling_in_is_quantus(quantus: Any, explained: Explained) -> None:
    impute = quantus.functions.perturb_func.noisy_linear_imputation
    ranks = faithfulness.heat_ranks(explained.maps)
    for share in (0.2, 0.5, 0.8):
        removed = ranks < share * ranks[0].numel()
        found = fill_in(explained.inputs, removed, noise=0.0)
        for index, image in enumerate(explained.inputs.numpy()):
            expected = impute(image, np.flatnonzero(removed[index].numpy()), noise=0.0)
            assert np.abs(found[index].numpy() - expected).max() < 0.02


def test_max_sensitivity_is_quantus(quantus: Any, explained: Explained) -> None:
    arrays = _arrays(explained)
    keep = explained.targets == 1
    noises = iter(robustness.noises(tuple(explained.inputs.shape[1:])).numpy())

    def change(arr: np.ndarray, indices: Any, **_: Any) -> np.ndarray:
        return np.asarray(arr + next(noises).reshape(1, -1))

    def explain(model: Any, inputs: np.ndarray, targets: np.ndarray, **_: Any) -> np.ndarray:
        maps = explained.explain(torch.from_numpy(inputs).float(), torch.from_numpy(targets))
        return np.asarray(maps[:, None].numpy())

    metric = quantus.MaxSensitivity(
        nr_samples=robustness.CHANGES,
        perturb_func=change,
        abs=False,
        normalise=False,
        disable_warnings=True,
        norm_numerator=functools.partial(_norms),
        norm_denominator=functools.partial(_norms),
        similarity_func=lambda a, b: a - b,
    )
    expected = np.array(metric(**arrays, explain_func=explain), np.float64)
    assert robustness.max_sensitivity(explained)[keep].numpy() == pytest.approx(expected, abs=1e-5)


def _norms(a: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(a, axis=-1))
