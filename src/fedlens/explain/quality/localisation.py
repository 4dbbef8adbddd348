"""Do maps point at what the expert outlined?

Every function takes maps (N, S, S) float32 0..1 and outlines (N, S, S) bool and gives float64 (N,), NaN
where there is no outline. A map without any heat points nowhere and gets 0. A random map gives, on
average, the outlined share of the image in every measure; a map that is hot in the middle, whatever the
image shows, is ``centre_prior``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedlens.metrics.explanation import IOU_THRESHOLDS


def pointing(maps: Tensor, masks: Tensor) -> Tensor:
    """Whether the hottest place lies inside; of several equally hot ones, the share that does.

    Zhang 2016 accepts a hit within 15 pixels of the outline; here it must be inside.
    """
    heat, inside = maps.flatten(1), masks.flatten(1)
    hottest = heat == heat.amax(1, keepdim=True)
    return _defined((hottest & inside).sum(1).double() / hottest.sum(1), maps, masks)


def energy(maps: Tensor, masks: Tensor) -> Tensor:
    """Share of the heat that lies inside: Arras 2022's relevance mass accuracy, and, as maps are never
    negative, the energy-based pointing game (Wang 2020) too.
    """
    heat = maps.flatten(1).double()
    return _defined((heat * masks.flatten(1)).sum(1) / heat.sum(1), maps, masks)


def rank(maps: Tensor, masks: Tensor) -> Tensor:
    """Of the K hottest places the share inside, K being the outline's size (Arras 2022).

    Where the K-th place is tied with others, the share expected of drawing among them.
    """
    heat, inside = maps.flatten(1), masks.flatten(1)
    size = inside.sum(1, keepdim=True)
    ranked = heat.sort(dim=1, descending=True).values
    last = ranked.gather(1, (size - 1).clamp(min=0))
    above, tied = heat > last, heat == last
    drawn = (size - above.sum(1, keepdim=True))[:, 0].double() / tied.sum(1)
    hits = (above & inside).sum(1) + drawn * (tied & inside).sum(1)
    return _defined(hits / size[:, 0], maps, masks)


def overlap(maps: Tensor, masks: Tensor) -> Tensor:
    """Intersection over union of outline and marked places, (N, thresholds) float64.

    A place is marked from each of ``IOU_THRESHOLDS`` on. The best threshold is chosen on the mean of all
    images, not for each image, which would flatter every map, a random one included.
    """
    heat, inside = maps.flatten(1), masks.flatten(1)
    curve = []
    for threshold in IOU_THRESHOLDS:
        marked = heat >= threshold
        shared = (marked & inside).sum(1).double()
        curve.append(_defined(shared / (marked | inside).sum(1), maps, masks))
    return torch.stack(curve, dim=1)


def area(masks: Tensor) -> Tensor:
    """Share of the image inside the outline, (N,) float64; NaN where there is none."""
    share = masks.flatten(1).double().mean(1)
    return torch.where(share > 0, share, torch.nan)


def centre_prior(masks: Tensor) -> Tensor:
    """A fixed bell in the middle, as large as ``masks``, of deviation a quarter of the side."""
    size = masks.shape[2]
    place = (torch.arange(size, device=masks.device) + 0.5) / size - 0.5
    bell = torch.exp(-0.5 * (place / 0.25).square())
    heat = bell[:, None] * bell
    return (heat / heat.max()).expand(len(masks), -1, -1)


def _defined(values: Tensor, maps: Tensor, masks: Tensor) -> Tensor:
    values = torch.where(maps.flatten(1).any(1), values, 0.0)
    return torch.where(masks.flatten(1).any(1), values, torch.nan)
