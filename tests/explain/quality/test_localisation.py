"""Localisation: known answers, ties, and what chance gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlens.explain.quality import localisation
from fedlens.explain.quality.measuring import COMPARED
from fedlens.metrics.explanation import IOU_THRESHOLDS


def _corner(size: int = 8, side: int = 4) -> torch.Tensor:
    mask = torch.zeros(1, size, size, dtype=torch.bool)
    mask[0, :side, :side] = True
    return mask


def test_a_perfect_and_a_perfectly_wrong_map() -> None:
    mask = _corner()
    for compare in COMPARED.values():
        assert compare(mask.float(), mask).max() == 1
        assert compare((~mask).float(), mask).max() == 0


def test_known_answers() -> None:
    mask = _corner(4, 2)
    maps = torch.tensor([[[1.0, 0.5, 0.0, 0.0], [0.5, 0.0, 0.5, 0.0], [0.0] * 4, [0.0] * 4]])
    assert localisation.pointing(maps, mask).item() == 1
    assert localisation.energy(maps, mask).item() == pytest.approx(2 / 2.5)
    # Four places are outlined: the hottest, three of a half (two of them inside).
    assert localisation.rank(maps, mask).item() == pytest.approx(3 / 4)
    at_half = IOU_THRESHOLDS.index(0.5)
    assert localisation.overlap(maps, mask)[0, at_half].item() == pytest.approx(3 / 5)
    assert localisation.overlap(maps, mask)[0, at_half + 1].item() == pytest.approx(1 / 4)
    assert localisation.area(mask).item() == 0.25


def test_ties_count_as_drawing_lots() -> None:
    mask = _corner()
    for compare in (localisation.pointing, localisation.energy, localisation.rank):
        assert compare(torch.ones(1, 8, 8), mask).item() == pytest.approx(0.25)


def test_an_empty_map_points_nowhere_and_without_an_outline_nothing_is_said() -> None:
    for compare in COMPARED.values():
        assert (compare(torch.zeros(1, 8, 8), _corner()) == 0).all()
        assert compare(torch.ones(1, 8, 8), torch.zeros(1, 8, 8, dtype=torch.bool)).isnan().all()
    assert localisation.area(torch.zeros(1, 8, 8, dtype=torch.bool)).isnan().all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30))
def test_random_maps_give_the_outlined_share_on_average(seed: int, side: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[:side, 1 : side + 1] = True
    masks = mask.expand(150, -1, -1)
    maps = torch.rand(150, 32, 32, generator=generator)
    share = mask.float().mean().item()
    # Of values within 0..1 with this mean, those that are all 0 or 1 vary most.
    slack = 6 * np.sqrt(share * (1 - share) / len(maps))
    for compare in (localisation.pointing, localisation.energy, localisation.rank):
        assert compare(maps, masks).mean().item() == pytest.approx(share, abs=slack + 1e-3)
    # Overlap's best threshold marks nearly everything; marking all of it gives the share exactly.
    assert 0.94 * share - 0.01 < localisation.overlap(maps, masks).mean(0).max().item() < share + 0.01


def test_the_centre_prior_is_hot_in_the_middle_only() -> None:
    middle = localisation.centre_prior(torch.zeros(3, 32, 32, dtype=torch.bool))
    assert middle.shape == (3, 32, 32) and middle.max() == 1
    assert middle[0, 15:17, 15:17].min() == 1 and middle[0, 0, 0] < 0.05
    assert torch.equal(middle[0], middle[0].flip(0)) and torch.equal(middle[0], middle[0].T)
