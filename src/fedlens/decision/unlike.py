"""Is an image unlike the training images? Distance of its features, from sums over hospitals.

Mahalanobis distance to the nearest class mean under one covariance for all classes (Lee et al. 2018, "A
Simple Unified Framework for Detecting Out-of-Distribution Samples"), on the network's last maps averaged
over places. Sums of features and of their products add up over hospitals; the threshold comes from a
histogram of held-out images' distances.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fedlens.decision.scores import BINS
from fedlens.errors import DataError

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]

UNITS = 1 << 11
"""A feature of 1 is this many units; products have the square of it."""

MOST_FEATURE = 32.0
"""Features are cut to this size, so that products of ``MOST_IMAGES`` images stay within 2^54."""

MOST_IMAGES = 1 << 22
"""Training images of one hospital."""

_LEAST_LOG, _MOST_LOG = -6.0, 14.0
_SPREAD = 1e-9
_ROUNDING = 1e-9
"""What float64 may make of a spread of 0, as a share of all products."""


@dataclass(frozen=True, eq=False)
class FeatureTotals:
    """Sums of whole-number features; grouping of images changes nothing.

    Attributes:
        sums: int64 (C, K) by true class, in units of 2^-11.
        counts: int64 (C,) images.
        products: int64 (K * (K + 1) / 2,), the upper triangle of the summed outer products over all
            classes, row by row, in units of 2^-22.
    """

    sums: Counts
    counts: Counts
    products: Counts

    @classmethod
    def zero(cls, classes: int, features: int) -> Self:
        """Of no images."""
        triangle = features * (features + 1) // 2
        return cls(
            np.zeros((classes, features), np.int64), np.zeros(classes, np.int64), np.zeros(triangle, np.int64)
        )

    @classmethod
    def of(cls, features: npt.NDArray[np.floating], labels: Counts, classes: int) -> Self:
        """Of one batch of images.

        Args:
            features: (N, K) with N up to a few thousand, pooled over places.
            labels: int64 (N,).
            classes: Classes of the study.

        Raises:
            DataError: A feature is not finite.
        """
        if not np.isfinite(features).all():
            raise DataError("Some features are not finite.", why="The network has diverged.")
        # Whole numbers up to 2^16 in float64: sums of their products are exact, and fast.
        whole = np.rint(np.clip(features.astype(np.float64), -MOST_FEATURE, MOST_FEATURE) * UNITS)
        totals = cls.zero(classes, features.shape[1])
        np.add.at(totals.sums, labels, whole.astype(np.int64))
        np.add.at(totals.counts, labels, 1)
        products = (whole.T @ whole)[np.triu_indices(features.shape[1])]
        return cls(totals.sums, totals.counts, products.astype(np.int64))

    def __add__(self, other: Self) -> Self:
        return type(self)(self.sums + other.sums, self.counts + other.counts, self.products + other.products)

    def possible(self, hospitals: int = 1) -> bool:
        """Whether so many hospitals' images can have come to these sums.

        No count is negative, all together are at most 2^22 a hospital, no sum and no product is beyond what
        the counts allow, and in no direction is the spread within classes below 0, but for rounding.
        """
        most = MOST_FEATURE * UNITS
        # In float64, where nothing can wrap.
        counts, sums = self.counts.astype(np.float64), self.sums.astype(np.float64)
        images = counts.sum()
        if (
            (counts < 0).any()
            or images > MOST_IMAGES * hospitals
            or (np.abs(sums) > most * counts[:, None]).any()
            or (np.abs(self.products.astype(np.float64)) > most**2 * images).any()
        ):
            return False
        whole, within = self.scatter()
        return bool(np.linalg.eigvalsh(within)[0] >= -_ROUNDING * np.trace(whole))

    def scatter(self) -> tuple[Floats, Floats]:
        """Summed outer products of features, and what is left of them within classes, float64 (K, K) each."""
        size = self.sums.shape[1]
        sums = self.sums / UNITS
        whole = np.zeros((size, size))
        whole[np.triu_indices(size)] = self.products / UNITS**2
        whole += np.triu(whole, 1).T
        return whole, whole - sums.T @ (sums / np.maximum(self.counts, 1)[:, None])


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Where the training images of each class lie; in single precision, as messages carry it.

    Attributes:
        means: float32 (C, K); NaN for a class without images.
        whitening: float32 (K, K): rows times a difference of features have unit covariance.
    """

    means: Singles
    whitening: Singles

    @classmethod
    def fit(cls, totals: FeatureTotals, *, shrinkage: float) -> Self:
        """Means and the covariance within classes, drawn towards a multiple of the identity.

        Args:
            totals: Summed over hospitals.
            shrinkage: Weight of the identity, above 0 and up to 1.

        Raises:
            DataError: Fewer than two images.
        """
        images = int(totals.counts.sum())
        if images < 2:
            raise DataError(f"Feature statistics of {images} images say nothing.")
        size = totals.sums.shape[1]
        within = totals.scatter()[1] / images
        spread = max(float(np.trace(within)) / size, _SPREAD)
        covariance = (1 - shrinkage) * within + shrinkage * spread * np.eye(size)
        counts = totals.counts[:, None]
        means = np.where(counts > 0, totals.sums / UNITS / np.maximum(counts, 1), np.nan)
        whitening = np.linalg.inv(np.linalg.cholesky(covariance))
        return cls(means.astype(np.float32), whitening.astype(np.float32))

    @classmethod
    def from_numbers(cls, numbers: Mapping[str, npt.NDArray[Any]]) -> Self:
        """From arrays by field name.

        Raises:
            DataError: Other names, types or shapes, or values that no fit gives.
        """
        means, whitening = numbers.get("means"), numbers.get("whitening")
        if means is None or whitening is None or len(numbers) != 2:
            raise DataError(f"Feature statistics {sorted(numbers)} are not means and whitening.")
        known = np.isfinite(means)
        if (
            means.ndim != 2
            or whitening.shape != (means.shape[1],) * 2
            or not (known.all(axis=1) | np.isnan(means).all(axis=1)).all()
            or not (known.any() and np.isfinite(whitening).all())
        ):
            raise DataError("Feature statistics are of no shape or value that a fit gives.")
        return cls(means.astype(np.float32), whitening.astype(np.float32))

    def numbers(self) -> dict[str, Singles]:
        """Arrays by field name."""
        return {"means": self.means, "whitening": self.whitening}

    def distances(self, features: npt.NDArray[np.floating]) -> Floats:
        """Squared Mahalanobis distance to the nearest class mean by feature, float64 (N,); about 1 at home.

        Args:
            features: (N, K).
        """
        whitening, means = self.whitening.T.astype(np.float64), self.means.astype(np.float64)
        given = np.clip(features.astype(np.float64), -MOST_FEATURE, MOST_FEATURE) @ whitening
        centres = means[np.isfinite(means[:, 0])] @ whitening
        squares = [np.square(given - centre).mean(axis=1) for centre in centres]
        nearest: Floats = np.min(squares, axis=0)
        return nearest


def distance_bin(distances: Floats) -> Counts:
    """Bin 0..999 of distances on a logarithmic scale, monotone, with open ends; not a number is furthest."""
    with np.errstate(divide="ignore"):
        power = np.nan_to_num(np.log2(distances), nan=_MOST_LOG)
    share = (np.clip(power, _LEAST_LOG, _MOST_LOG) - _LEAST_LOG) / (_MOST_LOG - _LEAST_LOG)
    filled: Counts = np.minimum((share * BINS).astype(np.int64), BINS - 1)
    return filled


def distance_histogram(distances: Floats) -> Counts:
    """Histogram of held-out images' distances, int64 (1000,); adds up over hospitals."""
    return np.bincount(distance_bin(distances), minlength=BINS).astype(np.int64)
