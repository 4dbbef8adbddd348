"""Does a map stay the same when the image hardly changes, and move with it when it moves?"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fedlens.explain.quality.explained import Explained, fixed_draws

RADIUS = 0.1
"""Greatest change of an input value: 6 grey levels."""

CHANGES = 8


def max_sensitivity(explained: Explained) -> Tensor:
    """Greatest relative change of the map, in the Euclidean norm, over ``CHANGES`` noisy inputs (Yeh 2019).

    The noise is uniform within ``RADIUS`` and the same for all images. float64 (N,); NaN where the
    map is empty, as there is nothing to compare with.
    """
    norm = explained.maps.flatten(1).double().norm(dim=1)
    worst = torch.zeros_like(norm)
    for noise in noises(tuple(explained.inputs.shape[1:])).to(explained.inputs.device):
        changed = explained.explain(explained.inputs + noise, explained.targets)
        worst = worst.maximum((changed - explained.maps).flatten(1).double().norm(dim=1))
    return torch.where(norm > 0, worst / norm, torch.nan)


def noises(shape: tuple[int, ...]) -> Tensor:
    """What ``max_sensitivity`` adds, (CHANGES, *shape) float32."""
    return RADIUS * (2 * torch.rand(CHANGES, *shape, generator=fixed_draws(3)) - 1)


def flip_equivariance(explained: Explained) -> Tensor:
    """Likeness of the mirrored image's map to the mirrored map, float64 (N,); NaN where both are empty.

    Likeness is the cosine, as in Crabbé 2023.
    """
    mirrored = explained.explain(explained.inputs.flip(3), explained.targets)
    return _likeness(mirrored.flip(2), explained.maps)


def shift_equivariance(explained: Explained) -> Tensor:
    """Mean likeness of the shifted image's map to the shifted map, over four directions, float64 (N,).

    The shift is a 32nd of the side, half a cell of a map of 16 by 16; the image goes on at its border as it
    ends there, and only what both maps show is compared. NaN where they are empty.
    """
    size = explained.maps.shape[2]
    far = max(1, size // 32)
    likeness = []
    for down, right in ((far, 0), (-far, 0), (0, far), (0, -far)):
        edges = (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0))
        grown = F.pad(explained.inputs, edges, mode="replicate")
        top, left = max(-down, 0), max(-right, 0)
        moved = explained.explain(
            grown[..., top : top + size, left : left + size].contiguous(), explained.targets
        )
        here = moved[:, max(down, 0) : size + min(down, 0), max(right, 0) : size + min(right, 0)]
        there = explained.maps[:, top : size - max(down, 0), left : size - max(right, 0)]
        likeness.append(_likeness(here, there))
    return torch.stack(likeness).mean(0)


def _likeness(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of two maps as vectors; 0 where one is empty, NaN where both are."""
    one, other = first.flatten(1).double(), second.flatten(1).double()
    norms = one.norm(dim=1) * other.norm(dim=1)
    cosine = (one * other).sum(1) / torch.where(norms > 0, norms, 1.0)
    return torch.where(one.any(1) | other.any(1), cosine, torch.nan)
