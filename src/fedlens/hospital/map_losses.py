"""Training with explanations at one hospital: which images have a wish for their map, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedlens.explain.losses import GRID, consistency_loss, field_loss, outline_loss, training_heat
from fedlens.hospital.images import Rows
from fedlens.hospital.regions import ImageRegions
from fedlens.imaging.augment import Warps, warp_masks
from fedlens.study import ExplanationSettings

Passed = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Inputs (N, C, S, S) to maps (N, K, h, w) and logits (N, classes), both in one graph."""


@dataclass(frozen=True, eq=False)
class Wishes:
    """Where the heat of a batch should lie, each (N, GRID, GRID) float32, None where the loss is off.

    Attributes:
        outlines: Share of each place inside the expert's outline; 0 everywhere for an image without one.
        insides: Share of each place inside the body or on free skin.
    """

    outlines: Tensor | None = None
    insides: Tensor | None = None

    def to(self, device: torch.device) -> Wishes:
        """The same on a device."""
        return Wishes(*(None if part is None else part.to(device) for part in (self.outlines, self.insides)))


class MapLosses:
    """The losses on maps that a study switches on, for one hospital's training images.

    Args:
        settings: Their weights.
        hospital: Its outlines are left alone where ``outlines_at`` names others.
        regions: Of the images it trains on.
    """

    def __init__(self, settings: ExplanationSettings, hospital: str, regions: ImageRegions) -> None:
        self._settings = settings
        self._regions = regions
        allowed = not settings.outlines_at or hospital in settings.outlines_at
        self._use_outlines = settings.outline_loss > 0 and allowed and bool(regions.outlined.any())

    @property
    def active(self) -> bool:
        """Whether any loss acts at this hospital."""
        settings = self._settings
        return self._use_outlines or settings.field_loss > 0 or settings.consistency_loss > 0

    def wishes(self, indices: Rows, warps: Warps) -> Wishes:
        """Where the heat of the images at ``indices``, so augmented, should lie.

        An image whose outline's file is damaged counts as if nobody had outlined it.
        """
        outlines = insides = None
        if self._use_outlines:
            masks = self._regions.readable_outlines(indices)
            outlines = None if masks is None else _shares(warp_masks(masks, warps))
        if self._settings.field_loss > 0:
            insides = _shares(warp_masks(self._regions.insides(indices), warps))
        return Wishes(outlines, insides)

    def loss(
        self, passed: Passed, inputs: Tensor, maps: Tensor, logits: Tensor, labels: Tensor, wishes: Wishes
    ) -> Tensor:
        """Weighted sum of the losses, averaged over the batch, a scalar.

        Args:
            passed: The network; run once more on the mirrored inputs where the consistency loss is on.
            inputs: (N, C, S, S).
            maps: What ``passed`` gave for them.
            logits: What it gave too, (N, classes).
            labels: (N,) int64.
            wishes: Of this batch.
        """
        heat = training_heat(maps, logits, labels)
        total = heat.new_zeros(len(heat))
        if wishes.outlines is not None:
            total = total + self._settings.outline_loss * outline_loss(heat, wishes.outlines)
        if wishes.insides is not None:
            total = total + self._settings.field_loss * field_loss(heat, wishes.insides)
        if self._settings.consistency_loss > 0:
            turned = training_heat(*passed(inputs.flip(3)), labels)
            total = total + self._settings.consistency_loss * consistency_loss(heat, turned)
        return total.mean()


def _shares(masks: npt.NDArray[np.bool_]) -> Tensor:
    """Share of each place of the grid that lies inside, float32 (N, GRID, GRID)."""
    shares = np.stack(
        [cv2.resize(mask.astype(np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA) for mask in masks]
    )
    return torch.from_numpy(np.asarray(shares, np.float32))
