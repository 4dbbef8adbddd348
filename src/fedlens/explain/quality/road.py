"""Remove and debias (Rong 2022): places are removed by filling them in from their surroundings.

A black patch tells a network that something was removed, and where; a filled-in one does not.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fedlens.explain.quality.explained import Explained, fixed_draws, probability
from fedlens.explain.quality.faithfulness import heat_ranks

SHARES = (0.2, 0.5, 0.8)
"""Of the image's places, removed."""

NOISE = 0.01
"""Deviation of the noise on filled-in places, in input units."""

_LAST_CHANGE = 1e-3
_MOST_ITERATIONS = 200


def road(explained: Explained) -> Tensor:
    """Mean over ``SHARES`` of the probability left with the coldest places removed, minus that with the
    hottest ones removed; 0 for a map that says nothing. float64 (N,).
    """
    ranks = heat_ranks(explained.maps)
    places = ranks[0].numel()
    total = torch.zeros(len(ranks), dtype=torch.float64, device=ranks.device)
    for share in SHARES:
        count = round(share * places)
        for removed, sign in ((ranks < count, -1.0), (ranks >= places - count, 1.0)):
            filled = fill_in(explained.inputs, removed)
            total += sign * probability(explained.network, filled, explained.targets)
    return total / len(SHARES)


def fill_in(inputs: Tensor, removed: Tensor, *, noise: float = NOISE) -> Tensor:
    """Noisy linear imputation: each removed place becomes the weighted mean of its eight neighbours.

    Straight neighbours weigh 1/6 and diagonal ones 1/12. The linear system is solved by conjugate
    gradients from a guess made on halved grids, to about the deviation of the noise.

    Args:
        inputs: (N, C, S, S) float32; not changed.
        removed: (N, S, S) bool, not everywhere True.
        noise: Deviation of the noise, the same field for every image.
    """
    holes = removed[:, None]
    known = torch.where(holes, 0.0, inputs)
    solution = _solve(known, holes, _guess(known, holes))
    field = torch.randn(inputs.shape[1:], generator=fixed_draws(2), dtype=inputs.dtype).to(inputs.device)
    return torch.where(holes, solution + noise * field, inputs)


def _guess(known: Tensor, holes: Tensor) -> Tensor:
    """Values for the holes, from the same problem on a grid of half as many rows and columns."""
    if known.shape[2] < 4 or not holes.any():
        return known
    weight = (~holes).to(known.dtype)
    coarse_weight = F.avg_pool2d(weight, 2, ceil_mode=True)
    coarse = F.avg_pool2d(known * weight, 2, ceil_mode=True) / coarse_weight.clamp(min=1e-6)
    coarse_holes = coarse_weight == 0
    coarse = _solve(coarse, coarse_holes, _guess(coarse, coarse_holes)) + coarse * ~coarse_holes
    finer = F.interpolate(coarse, size=known.shape[2:], mode="bilinear", align_corners=False)
    return torch.where(holes, finer, known)


def _solve(known: Tensor, holes: Tensor, guess: Tensor) -> Tensor:
    """The values in the holes, zero elsewhere, (N, C, S, S); conjugate gradients with scaled residuals."""
    inside = holes.to(known.dtype)
    diagonal = _neighbours(torch.ones_like(inside))
    right = _neighbours(known) * inside

    def apply(values: Tensor) -> Tensor:
        return (diagonal * values - _neighbours(values)) * inside

    values = guess * inside
    residual = right - apply(values)
    scaled = residual / diagonal
    direction = scaled
    power = (residual * scaled).sum(dim=(2, 3), keepdim=True)
    for _ in range(_MOST_ITERATIONS):
        image = apply(direction)
        curvature = (direction * image).sum(dim=(2, 3), keepdim=True)
        step = torch.where(curvature > 0, power / curvature.clamp(min=1e-30), 0.0)
        change = step * direction
        values = values + change
        if change.abs().max() < _LAST_CHANGE:
            break
        residual = residual - step * image
        scaled = residual / diagonal
        before, power = power, (residual * scaled).sum(dim=(2, 3), keepdim=True)
        direction = scaled + torch.where(before > 0, power / before.clamp(min=1e-30), 0.0) * direction
    return values


def _neighbours(values: Tensor) -> Tensor:
    """Weighted sum of each place's neighbours inside the image."""
    # Twelfths of a 1-2-1 by 1-2-1 kernel are 1/12 in the corners and 1/6 on the sides; its middle is 1/3.
    padded = F.pad(values, (1, 1, 1, 1))
    rows = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    both = rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]
    return both / 12 - values / 3
