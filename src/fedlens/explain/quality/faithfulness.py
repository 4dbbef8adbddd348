"""Does the network's output hang on the places that a map marks?

All figures are on the softmax probability of the explained class, float64 (N,).
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedlens.explain.quality.explained import Explained, blurred, fixed_draws, mean_colour, probability
from fedlens.models.network import Network

STEPS = 20
SQUARES = 32


def deletion(explained: Explained) -> Tensor:
    """Area under the probability as the hottest places first are painted over in the image's mean colour."""
    start, end = explained.inputs, mean_colour(explained.inputs).expand_as(explained.inputs)
    return _area(curve(explained.network, start, end, explained.targets, heat_ranks(explained.maps)))


def insertion(explained: Explained) -> Tensor:
    """Area under the probability as the hottest places first are sharpened in a blurred image."""
    start, end = blurred(explained.inputs), explained.inputs
    return _area(curve(explained.network, start, end, explained.targets, heat_ranks(explained.maps)))


def infidelity(explained: Explained) -> Tensor:
    """Mean squared difference between what a map predicts of a change and what the change does.

    The changes paint squares of an eighth to half of the side in the image's mean colour (Yeh 2019,
    square removal): a map predicts its heat inside the square, times the factor that fits best for the
    image, since maps say where and not how much.
    """
    before = probability(explained.network, explained.inputs, explained.targets)
    painted = mean_colour(explained.inputs)
    predicted, measured = [], []
    for square in squares(explained.maps.shape[2]).to(explained.maps.device):
        changed = torch.where(square, painted, explained.inputs)
        predicted.append((explained.maps.double() * square).sum(dim=(1, 2)))
        measured.append(before - probability(explained.network, changed, explained.targets))
    prediction, drop = torch.stack(predicted), torch.stack(measured)
    power = prediction.square().sum(0)
    factor = (prediction * drop).sum(0) / torch.where(power > 0, power, 1.0)
    return (factor * prediction - drop).square().mean(0)


def squares(size: int) -> Tensor:
    """The places that ``infidelity`` changes, (SQUARES, size, size) bool, the same for all images."""
    draws = torch.rand(SQUARES, 3, generator=fixed_draws(1))
    side = (size * (0.125 + 0.375 * draws[:, 0])).round().long().clamp(min=1)
    corner = (draws[:, 1:] * (size - side + 1)[:, None]).long()
    place = torch.arange(size)
    inside = (place >= corner[..., None]) & (place < (corner + side[:, None])[..., None])
    return inside[:, 0, :, None] & inside[:, 1, None, :]


def heat_ranks(maps: Tensor) -> Tensor:
    """Each place's rank, hottest 0, (N, S, S) int64; ties in a random order that is always the same."""
    heat = maps.flatten(1)
    shuffled = torch.randperm(heat.shape[1], generator=fixed_draws(0)).to(maps.device)
    order = shuffled[heat[:, shuffled].argsort(dim=1, descending=True, stable=True)]
    places = torch.arange(heat.shape[1], device=maps.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).view_as(maps)


def curve(
    network: Network, start: Tensor, end: Tensor, targets: Tensor, ranks: Tensor, steps: int = STEPS
) -> Tensor:
    """Probabilities on the way from ``start`` to ``end``, place by place in the order of ``ranks``.

    Args:
        network: In evaluation mode.
        start: (N, C, S, S) float32.
        end: As ``start``.
        targets: (N,) int64.
        ranks: (N, S, S) int64.
        steps: Equal parts of the way.

    Returns:
        (N, steps + 1) float64, both ends included.
    """
    places = ranks[0].numel()
    points = []
    for step in range(steps + 1):
        moved = ranks[:, None] < round(step / steps * places)
        points.append(probability(network, torch.where(moved, end, start), targets))
    return torch.stack(points, dim=1)


def _area(points: Tensor) -> Tensor:
    """By trapezoids, over 0..1."""
    return torch.trapezoid(points, dim=1) / (points.shape[1] - 1)
