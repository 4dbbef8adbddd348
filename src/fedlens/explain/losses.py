"""Losses on where a network looks while it learns.

All act on Grad-CAM's heat of each image's true class, before it is cut at zero: it is differentiable, and
costs the head's backward pass beside the training step.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

GRID = 32
"""Places along a side on which heat and outlines are compared; finer than any network's maps."""

_LEAST = 1e-3
"""Added to shares of heat, so that none of it inside costs 7 and not infinitely much."""


def training_heat(maps: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Grad-CAM's weighted sum of maps for each image's own class, (N, h, w) float32, of either sign.

    Args:
        maps: (N, K, h, w), what ``network.features`` gave, in the graph that ``logits`` come from.
        logits: (N, classes) of ``network.head(maps)``.
        labels: (N,) int64.

    The result can be differentiated with respect to all weights, those of the head included.
    """
    score = logits.gather(1, labels[:, None]).sum()
    (gradient,) = torch.autograd.grad(score, maps, create_graph=True)
    return torch.einsum("nk,nkhw->nhw", gradient.float().mean(dim=(2, 3)), maps.float())


def outline_loss(heat: Tensor, outlines: Tensor) -> Tensor:
    """Heat should lie inside the expert's outline, and be spread over it, (N,) float32.

    Two terms. The negative log of the share of positive heat inside is what is measured afterwards, but
    says nothing to a map without positive heat, and is content with one hot place. The cross entropy between
    the softmax of the heat over places and the outline pulls at every place.

    Args:
        heat: (N, h, w), of either sign.
        outlines: (N, GRID, GRID) float32, the share of each place inside; 0 everywhere for an image
            without one, whose loss is 0.
    """
    outlined = outlines.flatten(1).sum(1) > 0
    inside = F.adaptive_avg_pool2d(outlines[:, None], (heat.shape[1], heat.shape[2])).flatten(1)
    wanted = inside / inside.sum(1, keepdim=True).clamp(min=_LEAST)
    spread = -(wanted * F.log_softmax(heat.flatten(1), dim=1)).sum(1)
    return torch.where(outlined, spread - torch.log(_share(heat, outlines) + _LEAST), 0.0)


def field_loss(heat: Tensor, insides: Tensor) -> Tensor:
    """Negative log of the share of positive heat inside the body or on free skin, (N,) float32.

    Args:
        heat: (N, h, w), of either sign; where none is positive there is nothing to move, and the loss is 0.
        insides: (N, GRID, GRID) float32, the share of each place inside.
    """
    hot = (heat > 0).flatten(1).any(1)
    return torch.where(hot, -torch.log(_share(heat, insides) + _LEAST), 0.0)


def consistency_loss(heat: Tensor, mirrored: Tensor) -> Tensor:
    """One minus the cosine of an image's positive heat and that of its mirror image, turned back, (N,).

    Args:
        heat: (N, h, w), of either sign.
        mirrored: (N, h, w), of the mirrored images.
    """
    return 1 - F.cosine_similarity(F.relu(heat).flatten(1), F.relu(mirrored.flip(2)).flatten(1), eps=1e-6)


def _share(heat: Tensor, places: Tensor) -> Tensor:
    """Share of the positive heat on ``places``, as a map of the image's size would have it, (N,)."""
    hot = F.interpolate(F.relu(heat)[:, None], (GRID, GRID), mode="bilinear", align_corners=False)[:, 0]
    return (hot * places).sum(dim=(1, 2)) / hot.sum(dim=(1, 2)).clamp(min=1e-12)
