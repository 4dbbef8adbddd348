"""Faithfulness and robustness of maps that are right, wrong and blind."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from fedlens.errors import ExplanationError
from fedlens.explain.quality import Explained, faithfulness, robustness
from fedlens.explain.quality.explained import blurred, probability
from fedlens.explain.quality.road import road


def _with(explained: Explained, maps: Tensor) -> Explained:
    return dataclasses.replace(explained, maps=maps)


def _positives(explained: Explained) -> Explained:
    keep = explained.targets == 1
    assert explained.masks is not None
    return Explained(
        explained.network,
        explained.explain,
        explained.inputs[keep],
        explained.targets[keep],
        explained.maps[keep],
        explained.masks[keep],
    )


def test_the_right_map_beats_the_wrong_one_in_every_measure(explained: Explained) -> None:
    positives = _positives(explained)
    assert positives.masks is not None
    right, wrong = _with(positives, positives.masks.float()), _with(positives, (~positives.masks).float())
    assert (faithfulness.deletion(right) < faithfulness.deletion(wrong)).all()
    assert (faithfulness.insertion(right) > faithfulness.insertion(wrong)).all()
    assert (faithfulness.infidelity(right) < faithfulness.infidelity(wrong)).all()
    assert (road(right) > 0.2).all() and (road(wrong) < 0).all()


def test_a_map_and_its_opposite_cancel_in_road_and_a_constant_one_is_near_zero(explained: Explained) -> None:
    positives = _positives(explained)
    random = torch.rand(positives.maps.shape, generator=torch.Generator().manual_seed(0))
    forth, back = road(_with(positives, random)), road(_with(positives, 1 - random))
    assert torch.allclose(forth, -back, atol=0.05)
    assert road(_with(positives, torch.ones_like(random))).abs().max() < 0.3


def test_figures_of_an_image_do_not_hang_on_its_batch(explained: Explained) -> None:
    for function in (
        faithfulness.deletion,
        faithfulness.insertion,
        faithfulness.infidelity,
        road,
        robustness.max_sensitivity,
        robustness.flip_equivariance,
        robustness.shift_equivariance,
    ):
        together = function(explained)
        alone = torch.cat(
            [
                function(
                    Explained(
                        explained.network,
                        explained.explain,
                        explained.inputs[[index]],
                        explained.targets[[index]],
                        explained.maps[[index]],
                    )
                )
                for index in range(len(explained.inputs))
            ]
        )
        assert torch.allclose(together, alone, atol=2e-4, equal_nan=True), function


def test_ranks_order_by_heat_and_break_ties_the_same_way_for_all() -> None:
    maps = torch.zeros(2, 4, 4)
    maps[:, 2, 1], maps[:, 0, 3] = 1.0, 0.5
    ranks = faithfulness.heat_ranks(maps)
    assert (ranks[:, 2, 1] == 0).all() and (ranks[:, 0, 3] == 1).all()
    assert torch.equal(ranks[0], ranks[1])
    assert sorted(ranks[0].flatten().tolist()) == list(range(16))
    # Ties are not in reading order, which would favour whatever lies at the top.
    rest = ranks[0].flatten()[ranks[0].flatten() > 1]
    assert not torch.equal(rest, rest.sort().values)


def test_a_curve_runs_from_start_to_end(explained: Explained) -> None:
    start = torch.zeros_like(explained.inputs)
    points = faithfulness.curve(
        explained.network,
        start,
        explained.inputs,
        explained.targets,
        faithfulness.heat_ranks(explained.maps),
        7,
    )
    assert points.shape == (6, 8) and points.dtype == torch.float64
    assert torch.allclose(points[:, 0], probability(explained.network, start, explained.targets))
    assert torch.allclose(points[:, -1], probability(explained.network, explained.inputs, explained.targets))


def test_squares_lie_inside_and_have_the_stated_sides() -> None:
    for square in faithfulness.squares(64):
        rows, columns = square.any(1).sum(), square.any(0).sum()
        assert rows == columns and 8 <= rows <= 32
        assert square.sum() == rows * columns


def test_blurring_keeps_a_flat_image_and_smooths_a_noisy_one() -> None:
    flat = torch.full((1, 2, 32, 32), 0.7)
    assert torch.allclose(blurred(flat), flat, atol=1e-6)
    noise = torch.randn(1, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    assert blurred(noise).std() < 0.3 * noise.std()


def test_a_method_that_ignores_the_image_is_never_sensitive_nor_equivariant(explained: Explained) -> None:
    corner = torch.zeros_like(explained.maps)
    corner[:, :8, :8] = 1

    def blind(inputs: Tensor, targets: Tensor) -> Tensor:
        return corner

    constant = dataclasses.replace(explained, explain=blind, maps=corner)
    assert (robustness.max_sensitivity(constant) == 0).all()
    assert (robustness.flip_equivariance(constant) == 0).all()
    assert (robustness.shift_equivariance(constant) < 1).all()


def test_a_method_that_moves_with_the_image_is_equivariant(explained: Explained) -> None:
    def brightness(inputs: Tensor, targets: Tensor) -> Tensor:
        return inputs[:, 0].clamp(0, 1)

    moving = dataclasses.replace(
        explained, explain=brightness, maps=brightness(explained.inputs, explained.targets)
    )
    assert torch.allclose(robustness.flip_equivariance(moving), torch.ones(6, dtype=torch.float64))
    assert torch.allclose(robustness.shift_equivariance(moving), torch.ones(6, dtype=torch.float64))


def test_empty_maps_have_no_sensitivity(explained: Explained) -> None:
    empty = _with(explained, torch.zeros_like(explained.maps))
    assert robustness.max_sensitivity(empty).isnan().all()


def test_what_does_not_fit_is_refused(explained: Explained) -> None:
    with pytest.raises(ExplanationError, match="fit together"):
        _with(explained, explained.maps[:2])
    with pytest.raises(ExplanationError, match=r"outside 0\.\.1"):
        _with(explained, explained.maps + 1)
    with pytest.raises(ExplanationError, match=r"outside 0\.\.1"):
        _with(explained, torch.full_like(explained.maps, torch.nan))
    explained.network.train()
    try:
        with pytest.raises(ExplanationError, match="training mode"):
            _with(explained, explained.maps)
    finally:
        explained.network.eval()
