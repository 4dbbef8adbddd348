"""Whether probabilities mean what they say: calibration error, coverage of sets, risk against referral.

Intervals resample whole groups (patients, lesions, clusters of copies), as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fedlens.metrics.classification import Counts, Floats, Integers
from fedlens.metrics.intervals import Interval, interval_of, resample_sums

Groups = Sequence[str] | npt.NDArray[Any]
Flags = npt.NDArray[np.bool_]
Binning = Literal["mass", "width"]

CALIBRATION_BINS = 15


@dataclass(frozen=True, eq=False)
class Reliability:
    """A reliability diagram: images by the probability of their likeliest class.

    Attributes:
        counts: int64 (B,) images.
        confidence: float64 (B,) mean probability; NaN in empty bins.
        accuracy: float64 (B,) share that is right; NaN in empty bins.
        ece: Expected calibration error, 0..1: mean of ``|accuracy - confidence|`` over images.
        low, high: 95 % interval of ``ece``. Resampling adds noise to every bin, so it lies a little high.
        floor: What ``ece`` would be about on so many images if every probability were true: noise alone.
    """

    counts: Counts
    confidence: Floats
    accuracy: Floats
    ece: float
    low: float
    high: float
    floor: float


@dataclass(frozen=True)
class Share:
    """A share of images with its 95 % interval; NaN where there are none.

    Attributes:
        value: 0..1.
        low: Lower end.
        high: Upper end.
        images: Images it is a share of.
    """

    value: float
    low: float
    high: float
    images: int


def reliability(
    confidence: npt.NDArray[np.floating[Any]],
    right: Flags,
    groups: Groups,
    *,
    binning: Binning = "width",
    bins: int = CALIBRATION_BINS,
    resamples: int = 1000,
    seed: int = 0,
) -> Reliability:
    """Reliability of the likeliest class's probability (Naeini 2015; Guo et al. 2017).

    Args:
        confidence: (N,) probability of the likeliest class.
        right: bool (N,), whether it is the true one.
        groups: (N,).
        binning: ``width`` cuts 0..1 evenly, ``mass`` puts as many images into each bin (Nixon et al. 2019).
        bins: How many.
        resamples: Of groups; bins stay as they are.
        seed: Of the resamples.
    """
    values = confidence.astype(np.float64)
    member = _members(values, binning, bins)
    gaps = np.zeros((len(values), bins))
    gaps[np.arange(len(values)), member] = values - right
    counts = np.bincount(member, minlength=bins)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(member, values, bins) / counts
        accuracy = np.bincount(member, right, bins) / counts
    images = max(1, len(values))
    drawn = resample_sums(
        np.column_stack([gaps, np.ones(len(values))]), groups, resamples=resamples, seed=seed
    )
    errors = np.abs(drawn[:, :-1]).sum(1) / np.maximum(drawn[:, -1], 1)
    low, high = interval_of(errors)
    ece = float(np.abs(gaps.sum(0)).sum() / images)
    # The mean size of a normal deviation is sqrt(2 / pi) of its standard deviation.
    noise = np.sqrt(2 / np.pi * np.bincount(member, values * (1 - values), bins)).sum() / images
    return Reliability(counts.astype(np.int64), mean, accuracy, ece, low, high, float(noise))


def share_of(
    flags: Flags, groups: Groups, among: Flags | None = None, *, resamples: int = 1000, seed: int = 0
) -> Share:
    """Share of images with a flag, e.g. covered by their set, or found by an operating point.

    Args:
        flags: bool (N,).
        groups: (N,).
        among: bool (N,), the images that count; all where None.
        resamples: Of groups.
        seed: Of the resamples.
    """
    chosen = np.ones(len(flags), np.bool_) if among is None else among
    images = int(chosen.sum())
    if not images:
        return Share(float("nan"), float("nan"), float("nan"), 0)
    columns = np.column_stack([flags & chosen, chosen]).astype(np.float64)
    drawn = resample_sums(columns, groups, resamples=resamples, seed=seed)
    drawn = drawn[drawn[:, 1] > 0]
    interval = interval_of(drawn[:, 0] / drawn[:, 1])
    return Share(float(columns[:, 0].sum() / images), *interval, images)


def risk_by_referral(
    certainty: npt.NDArray[np.floating[Any]], right: Flags, rates: Sequence[float] | Floats
) -> Floats:
    """Error among the images that are kept when the least certain are referred, (R,); NaN if none is.

    Images of equal certainty are referred in proportion (El-Yaniv and Wiener 2010: the risk-coverage curve).

    Args:
        certainty: (N,); any score that rises with it.
        right: bool (N,).
        rates: Shares of images to refer, 0..1.
    """
    images = len(right)
    levels, member = np.unique(-certainty.astype(np.float64), return_inverse=True)
    kept = np.concatenate([[0.0], np.cumsum(np.bincount(member, minlength=len(levels)))])
    wrong = np.concatenate([[0.0], np.cumsum(np.bincount(member, ~right, len(levels)))])
    wanted = (1 - np.asarray(rates, np.float64)) * images
    with np.errstate(invalid="ignore", divide="ignore"):
        risk: Floats = np.interp(wanted, kept, wrong) / wanted
    return risk


def risk_reduction(
    referred: Flags, right: Flags, groups: Groups, *, resamples: int = 1000, seed: int = 0
) -> tuple[float, Interval]:
    """How much less often those that are kept are wrong, relative to all: 0.35 for 35 %; NaN without errors.

    Args:
        referred: bool (N,).
        right: bool (N,).
        groups: (N,).
        resamples: Of groups.
        seed: Of the resamples.
    """
    kept = ~referred
    columns = np.column_stack([~right, np.ones(len(right)), kept & ~right, kept]).astype(np.float64)
    drawn = _relative(resample_sums(columns, groups, resamples=resamples, seed=seed))
    value = float(_relative(columns.sum(0)[None])[0])
    return value, interval_of(drawn[np.isfinite(drawn)])


def _relative(sums: Floats) -> Floats:
    wrong, images, kept_wrong, kept = sums.T
    with np.errstate(invalid="ignore", divide="ignore"):
        reduction: Floats = 1 - (kept_wrong / kept) / (wrong / images)
    return reduction


def set_sizes(sets: Flags) -> Counts:
    """How many sets hold 0, 1, ... C classes, int64 (C + 1,), from sets bool (N, C)."""
    return np.bincount(sets.sum(1), minlength=sets.shape[1] + 1).astype(np.int64)


def covered(sets: Flags, true: Integers) -> Flags:
    """Whether each set holds the true class, bool (N,)."""
    return np.asarray(sets[np.arange(len(true)), true], np.bool_)


def _members(values: Floats, binning: Binning, bins: int) -> Counts:
    """Bin of each image; equal values share a bin."""
    if binning == "width":
        return np.minimum((values * bins).astype(np.int64), bins - 1)
    edges = np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]) if len(values) else np.zeros(bins - 1)
    return np.searchsorted(edges, values, side="left").astype(np.int64)
