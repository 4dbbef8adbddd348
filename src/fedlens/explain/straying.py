"""The stray detector: does a map's heat lie where no disease can be?

A map strays into a region (outside the body, on letters, frames, dark corners or hairs) where it holds
many times the heat that its size would give it. Verdicts add up by class, and a hospital whose class
strays more than the same class does elsewhere is told so: its images offer a short cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import hypergeom

from fedlens.imaging.field import FieldMasks
from fedlens.metrics.explanation import STRAY_REGIONS
from fedlens.metrics.explanation_totals import UNITS, QualityTotals
from fedlens.models.network import Network

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

TIMES_CHANCE: Mapping[str, float] = {"outside": 1.5, "text": 2.0, "border": 2.0, "corners": 2.0, "hair": 2.0}
"""From this many times a region's share of the image on, its share of the heat is straying.

Chosen on validation draws of phantoms (``benchmarks/straying.py --choose``: twelve studies in which nothing
strays, with seeds that the reported studies do not use): one map in twenty passes 0.9 outside the body, 0 on
text (nineteen in twenty have less than ``LEAST_SHARE`` there), 1.9 in corners and 1.8 on hairs. Rounded up to
2, and to 1.5 outside the body, whose half of an image cannot hold more than twice its share; frames,
which phantoms lack, are judged as corners are."""

LEAST_SHARE = 0.04
"""A region with less of the heat than this is never strayed into."""

_FEWEST_IMAGES = 5
_LEAST_RATE = 0.1
_CHANCE = 0.01


@dataclass(frozen=True)
class Straying:
    """A class of a hospital whose maps stray.

    Attributes:
        hospital: Name.
        label: Index of the class.
        region: One of ``STRAY_REGIONS``.
        strayed: Maps that do.
        images: Maps of the class at the hospital.
        elsewhere: Share of maps of the class that do at the other hospitals.
        chance: Probability of so many or more if straying had nothing to do with the hospital.
    """

    hospital: str
    label: int
    region: str
    strayed: int
    images: int
    elsewhere: float
    chance: float


def cell_of(network: Network) -> float:
    """Side of one cell of the network's maps in image pixels: what heat can be placed to."""
    parameter = next(network.parameters())
    size = network.image_size
    blank = torch.zeros(1, network.channels, size, size, device=parameter.device, dtype=parameter.dtype)
    with torch.no_grad():
        return size / network.features(blank).shape[-1]


def stray_values(
    maps: npt.NDArray[np.float32], fields: Sequence[FieldMasks], cell: float
) -> dict[str, Floats]:
    """Columns of the family ``straying`` for ``QualityTotals``, float64 (N,) each.

    Args:
        maps: float32 (N, S, S), 0..1.
        fields: Of the same N images.
        cell: What maps can place heat to, pixels: letters, frames and hairs reach half of it further,
            and what lies outside the body begins half of it away.

    Returns:
        ``energy-REGION`` (share of the heat; 0 for an empty map), ``area-REGION`` (share of the image),
        ``strays-REGION`` (0 or 1), and ``strays`` (any of them).
    """
    regions = np.stack([_regions(field, cell / 2) for field in fields])
    heat = maps.astype(np.float64)
    total = heat.sum(axis=(1, 2))
    energy = (heat[:, None] * regions).sum(axis=(2, 3)) / np.where(total > 0, total, 1)[:, None]
    area = regions.mean(axis=(2, 3))
    values: dict[str, Floats] = {}
    anywhere = np.zeros(len(maps), np.bool_)
    for index, region in enumerate(STRAY_REGIONS):
        share, chance = energy[:, index], area[:, index]
        strays = (share >= LEAST_SHARE) & (share >= TIMES_CHANCE[region] * chance)
        anywhere |= strays
        values[f"energy-{region}"] = share
        values[f"area-{region}"] = chance
        values[f"strays-{region}"] = strays.astype(np.float64)
    values["strays"] = anywhere.astype(np.float64)
    return values


def strays_by_itself(hospital: str, own: QualityTotals, others: QualityTotals) -> list[Straying]:
    """Classes of one hospital that stray more than the same classes do elsewhere.

    A hospital can find out alone: ``others`` is the federation's total minus its own.

    Args:
        hospital: Name, for the result.
        own: Its totals.
        others: All other hospitals' together.

    Returns:
        One entry for each class and region with five maps or more, of which at least a tenth stray, and so
        many more than elsewhere that chance gives as many in less than one of a hundred studies (Fisher's
        exact test, one-sided, Bonferroni over the classes and regions looked at).
    """
    found = []
    tests = len(own.sums) * len(STRAY_REGIONS)
    for region in STRAY_REGIONS:
        here, images = _verdicts(own, region)
        there, rest = _verdicts(others, region)
        for label in range(len(images)):
            strayed, of = int(here[label]), int(images[label])
            if of < _FEWEST_IMAGES or strayed < _LEAST_RATE * of:
                continue
            all_images, all_strayed = of + int(rest[label]), strayed + int(there[label])
            chance = float(hypergeom.sf(strayed - 1, all_images, all_strayed, of))
            if chance * tests < _CHANCE:
                elsewhere = int(there[label]) / max(int(rest[label]), 1)
                found.append(Straying(hospital, label, region, strayed, of, elsewhere, chance))
    return found


def straying_hospitals(totals: Mapping[str, QualityTotals]) -> list[Straying]:
    """``strays_by_itself`` of every hospital, where all totals are known; the surest first."""
    everyone = sum(totals.values(), start=QualityTotals.zero(len(next(iter(totals.values())).sums)))
    found = [
        straying
        for hospital, own in totals.items()
        for straying in strays_by_itself(hospital, own, everyone - own)
    ]
    return sorted(found, key=lambda straying: straying.chance)


def _verdicts(totals: QualityTotals, region: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    sums, counts = totals.column(f"strays-{region}")
    return sums // UNITS, counts


def _regions(field: FieldMasks, reach: float) -> Mask:
    """The image's regions at the resolution of maps, (regions, S, S), as ``STRAY_REGIONS``."""
    side = 2 * max(1, round(reach)) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))

    def grown(mask: Mask) -> Mask:
        return np.asarray(cv2.dilate(mask.astype(np.uint8), disc).astype(np.bool_))

    return np.stack(
        [~grown(field.field), grown(field.text), grown(field.border), field.corners, grown(field.hair)]
    )
