"""How much a hospital's update counts in the average."""

from __future__ import annotations

import numpy as np
import torch

from fedlens.explain.grad_cam import grad_cam
from fedlens.hospital.regions import ImageRegions
from fedlens.imaging.preprocess import to_input
from fedlens.models.network import Network
from fedlens.study import ExplanationSettings

SAMPLE = 64
"""Validation images that are explained after each round of training."""


class UpdateWeight:
    """A hospital's weight in the average: its images, or fewer where its maps leave the body.

    Weighted by explanations, each image counts by the mean share of heat inside the body or on free skin,
    over Grad-CAM maps of the class that the network, as just trained here, predicts for a fixed sample of
    held-out images. The hospital finds that share itself and tells no one: what leaves is the product, in a
    sealed study only as part of a sum.

    Args:
        settings: Of the study.
        images: Training images.
        held_out: Of validation images; weighted by number alone where there are none.
    """

    def __init__(self, settings: ExplanationSettings, images: int, held_out: ImageRegions) -> None:
        self._images = images
        self._held_out = held_out
        there = len(held_out.images)
        count = min(SAMPLE, there) if settings.weighting == "explanations" else 0
        # Evenly over the split, so that every class and group has its part.
        self._sample = np.linspace(0, there - 1, count).astype(np.int64)

    def of(self, network: Network) -> int:
        """Images that an update counts for, 1 or more.

        Raises:
            ExplanationError: The network's outputs are not finite.
        """
        if not len(self._sample):
            return self._images
        device = next(network.parameters()).device
        inputs = to_input(torch.from_numpy(self._held_out.images.take(self._sample))).to(device)
        heat = grad_cam(network, inputs).maps.cpu().numpy().astype(np.float64)
        total = heat.sum(axis=(1, 2))
        inside = (heat * self._held_out.insides(self._sample)).sum(axis=(1, 2))
        # A map without heat neither stays inside nor strays.
        share = float(np.mean(np.where(total > 0, inside / np.where(total > 0, total, 1.0), 0.5)))
        return max(1, round(self._images * share))
