"""Prediction sets with a coverage guarantee, from histograms of scores that add up over hospitals.

Split conformal prediction: where images to come are exchangeable with the calibration images, the set
holds the true class with at least the promised probability, whatever the network is worth. Counting in
bins keeps the promise, since a whole bin is let in where its edge would do; sets are larger by at most
what lies in one bin. The temperature was fitted on the same images: one parameter, whose effect on the
guarantee is of the order of one image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from fedlens.decision.scores import BINS, aps_scores, bin_of, lac_scores

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Score = Literal["lac", "aps"]


def score_bins(log_p: Floats, score: Score) -> Counts:
    """Bin of every class's score for every image, int64 (N, C), 0 for the best fit.

    Args:
        log_p: (N, C) normalised log probabilities at the fitted temperature.
        score: ``lac`` or ``aps``.
    """
    return bin_of(lac_scores(log_p) if score == "lac" else aps_scores(log_p))


def score_histogram(log_p: Floats, labels: Counts, score: Score) -> Counts:
    """Histogram of the true class's score by true class, int64 (C, 1000); adds up over hospitals."""
    classes = log_p.shape[1]
    own = score_bins(log_p, score)[np.arange(len(labels)), labels]
    flat = np.bincount(labels * BINS + own, minlength=classes * BINS)
    return flat.reshape(classes, BINS).astype(np.int64)


def last_bin(histogram: Counts, coverage: float) -> int:
    """The last bin to let in, so that a new image's score lies in it or below with the coverage.

    The ``ceil((n + 1) * coverage)``-th smallest of n scores decides (Vovk, Gammerman and Shafer 2005).

    Args:
        histogram: int64 (1000,).
        coverage: Above 0 and below 1.

    Returns:
        0..999; 999, which lets in everything, where there are too few images for the promise.
    """
    images = int(histogram.sum())
    # Rounded first: 10 * 0.9 is a little more than 9 in floating point.
    rank = math.ceil(round((images + 1) * coverage, 9))
    if rank > images:
        return BINS - 1
    return int(np.searchsorted(np.cumsum(histogram), rank))


@dataclass(frozen=True)
class ConformalRule:
    """Which classes a set holds.

    Attributes:
        score: How classes are scored.
        coverage: What was promised.
        last: Last bin to let in, one for each class; all equal unless promised by class.
        images: Calibration images.
    """

    score: Score
    coverage: float
    last: tuple[int, ...]
    images: int

    @classmethod
    def fit(cls, histogram: Counts, coverage: float, *, score: Score, per_class: bool) -> Self:
        """From the histogram of the true class's score by class, int64 (C, 1000)."""
        if per_class:
            last = tuple(last_bin(row, coverage) for row in histogram)
        else:
            last = (last_bin(histogram.sum(0), coverage),) * len(histogram)
        return cls(score, coverage, last, int(histogram.sum()))

    def sets(self, log_p: Floats) -> npt.NDArray[np.bool_]:
        """Whether each set holds each class, bool (N, C); a set may be empty.

        Args:
            log_p: (N, C) normalised log probabilities at the fitted temperature.
        """
        return np.asarray(score_bins(log_p, self.score) <= np.array(self.last), np.bool_)
