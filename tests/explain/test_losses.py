"""Losses on maps: what they ask for, and that gradients carry it to every network."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from fedlens.explain.grad_cam import grad_cam
from fedlens.explain.losses import GRID, consistency_loss, field_loss, outline_loss, training_heat
from fedlens.models.registry import build_network, network_names
from fedlens.study import ModelSettings


def square(top: int, left: int, side: int = 8, count: int = 1) -> torch.Tensor:
    places = torch.zeros(count, GRID, GRID)
    places[:, top : top + side, left : left + side] = 1
    return places


def heat_at(row: int, column: int, size: int = 8) -> torch.Tensor:
    heat = torch.full((1, size, size), -1.0)
    heat[0, row, column] = 5.0
    return heat


@pytest.mark.parametrize("name", network_names())
def test_the_heat_is_grad_cams_before_it_is_cut_at_zero(name: str) -> None:
    network = build_network(ModelSettings(name=name, dropout=0), classes=3, channels=3, image_size=64, seed=0)
    network.eval()
    inputs = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 1])
    maps = network.features(inputs)
    heat = training_heat(maps, network.head(maps), labels)
    sized = F.interpolate(F.relu(heat)[:, None], (64, 64), mode="bilinear", align_corners=False)[:, 0]
    wanted = grad_cam(network, inputs, labels).maps
    hottest = sized.amax(dim=(1, 2), keepdim=True).clamp(min=1e-30)
    assert torch.allclose(sized / hottest, wanted, atol=1e-4)


@pytest.mark.parametrize("name", network_names())
def test_steps_along_its_gradient_bring_heat_into_the_outline(name: str) -> None:
    network = build_network(ModelSettings(name=name, dropout=0), classes=3, channels=3, image_size=64, seed=0)
    inputs = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 1])
    outlines = square(0, 0, 16, count=4)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        maps = network.features(inputs)
        loss = outline_loss(training_heat(maps, network.head(maps), labels), outlines).mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.1


def test_heat_inside_the_outline_costs_less_than_heat_beside_it() -> None:
    outlines = square(0, 0)
    inside, beside = outline_loss(heat_at(0, 0), outlines), outline_loss(heat_at(5, 5), outlines)
    assert float(inside) < float(beside)


def test_an_image_without_an_outline_costs_nothing_and_sends_no_gradient() -> None:
    heat = heat_at(3, 3).requires_grad_()
    loss = outline_loss(heat, torch.zeros(1, GRID, GRID)).sum()
    loss.backward()
    assert loss.item() == 0
    assert heat.grad is not None and not heat.grad.any()


def test_a_map_without_positive_heat_still_learns_where_to_look() -> None:
    heat = torch.full((1, 8, 8), -1.0, requires_grad=True)
    outline_loss(heat, square(0, 0)).sum().backward()
    assert heat.grad is not None
    # Downhill is up inside and down outside.
    assert heat.grad[0, 0, 0] < 0 < heat.grad[0, 7, 7]


def test_the_field_loss_minds_only_positive_heat_outside() -> None:
    everywhere = torch.ones(1, GRID, GRID)
    assert float(field_loss(heat_at(5, 5), everywhere)) == pytest.approx(0, abs=2e-3)
    assert float(field_loss(heat_at(0, 0), square(16, 16, 16))) > 4
    assert float(field_loss(torch.full((1, 8, 8), -1.0), square(0, 0))) == 0


def test_a_mirrored_map_is_consistent_and_one_that_stays_is_not() -> None:
    heat = heat_at(2, 1)
    assert float(consistency_loss(heat, heat.flip(2))) == pytest.approx(0, abs=1e-6)
    assert float(consistency_loss(heat, heat)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("size", [7, 14, 40])
def test_maps_of_any_size_can_be_compared_with_outlines(size: int) -> None:
    heat = torch.randn(2, size, size, generator=torch.Generator().manual_seed(1)).requires_grad_()
    places = square(4, 4, count=2)
    (outline_loss(heat, places) + field_loss(heat, places)).sum().backward()
    assert heat.grad is not None and torch.isfinite(heat.grad).all()
