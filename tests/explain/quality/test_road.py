"""Filling in: the linear system of the paper, solved."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.sparse.linalg import spsolve

from fedlens.explain.quality.road import fill_in


def _exact(image: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """One image (H, W), its removed places from the sparse system as the paper sets it up."""
    places = [tuple(place) for place in np.argwhere(removed)]
    number = {place: index for index, place in enumerate(places)}
    system, right = sparse.lil_matrix((len(places), len(places))), np.zeros(len(places))
    for (row, column), index in number.items():
        for down, across in itertools.product((-1, 0, 1), repeat=2):
            place = (row + down, column + across)
            if (down, across) == (0, 0) or not (0 <= place[0] < len(image) and 0 <= place[1] < len(image)):
                continue
            weight = 1 / 6 if down * across == 0 else 1 / 12
            system[index, index] += weight
            if place in number:
                system[index, number[place]] -= weight
            else:
                right[index] += weight * image[place]
    filled = image.copy()
    filled[removed] = spsolve(sparse.csc_matrix(system), right)
    return filled


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("scattered", [True, False])
def test_solves_the_papers_system(share: float, scattered: bool) -> None:
    rng = np.random.default_rng(0)
    image = np.cumsum(rng.standard_normal((33, 33)), axis=1) / 4
    place = np.arange(33)
    heat = rng.random((33, 33)) if scattered else np.hypot(place[:, None] - 5, place - 9)
    removed = heat >= np.quantile(heat, 1 - share)
    inputs = torch.from_numpy(np.stack([image, -image])).float()[:, None]
    filled = fill_in(inputs, torch.from_numpy(removed).expand(2, -1, -1), noise=0.0)
    assert np.abs(filled[0, 0].numpy() - _exact(image, removed)).max() < 0.02
    assert np.abs(filled[1, 0].numpy() + _exact(image, removed)).max() < 0.02
    kept = torch.from_numpy(~removed)
    assert torch.equal(filled[0, 0][kept], inputs[0, 0][kept])


def test_noise_is_small_the_same_for_all_and_only_on_filled_places() -> None:
    inputs = torch.ones(2, 1, 32, 32)
    removed = torch.zeros(2, 32, 32, dtype=torch.bool)
    removed[:, 4:20, 4:20] = True
    filled = fill_in(inputs, removed)
    assert torch.equal(filled[0], filled[1])
    assert 0.005 < (filled - 1)[removed[:, None]].std() < 0.02
    assert (filled[~removed[:, None]] == 1).all()
