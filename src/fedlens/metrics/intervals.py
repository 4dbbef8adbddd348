"""Bootstrap intervals that resample patients, and paired comparisons of two networks.

Images of one patient, lesion or cluster of copies err together; resampling them one by one would
make every interval too narrow. So whole groups are drawn, with replacement, and a group's counts
enter as often as it was drawn. Where only sums over images are known, as at a coordinator, there is
:func:`wilson`, which takes every image for a patient of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from fedlens.errors import DataError
from fedlens.metrics.classification import SUMMARY, Counts, Floats, Integers, summaries
from fedlens.metrics.ranking import macro_auroc, weighted_auroc

LEVEL = 0.95
AUROC_RESAMPLES = 200
_BLOCK = 2_000_000


class Interval(NamedTuple):
    """A 95 % interval; NaN at both ends where fewer than two groups leave nothing to resample."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """One network's accuracy minus another's on the same images.

    Attributes:
        first: Accuracy of the first, 0..1.
        second: Accuracy of the second, 0..1.
        difference: ``first - second``.
        low: Lower end of the 95 % interval of the difference.
        high: Upper end.
        p_value: Two-sided bootstrap probability of a difference on the other side of zero.
        images: Images both were measured on.
        groups: Groups that were resampled.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float
    images: int
    groups: int


def bootstrap(
    true: Integers,
    probabilities: npt.NDArray[np.floating[Any]],
    groups: Sequence[str] | npt.NDArray[Any],
    statistics: Sequence[str] = ("accuracy", "balanced_accuracy", "f1_macro"),
    *,
    resamples: int = 1000,
    auroc_resamples: int = AUROC_RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """95 % percentile intervals of some statistics.

    Args:
        true: (N,) classes.
        probabilities: (N, C); the prediction is the greatest.
        groups: (N,) patient, lesion or cluster of each image.
        statistics: Names out of :data:`SUMMARY`, and ``auroc_macro``.
        resamples: Resamples of groups.
        auroc_resamples: At most this many for ``auroc_macro``, which costs more.
        seed: Same seed and same groups draw the same resamples, whatever the predictions.

    Raises:
        DataError: An unknown statistic.
    """
    drawn = draws(
        true,
        probabilities,
        groups,
        statistics,
        resamples=resamples,
        auroc_resamples=auroc_resamples,
        seed=seed,
    )
    return {name: interval_of(values) for name, values in drawn.items()}


def draws(
    true: Integers,
    probabilities: npt.NDArray[np.floating[Any]],
    groups: Sequence[str] | npt.NDArray[Any],
    statistics: Sequence[str],
    *,
    resamples: int,
    auroc_resamples: int = AUROC_RESAMPLES,
    seed: int,
) -> dict[str, Floats]:
    """The resampled values behind :func:`bootstrap`, one array a statistic.

    Draw ``i`` weighs the same groups alike for any two networks, so means over networks or seeds
    can be taken draw by draw.
    """
    unknown = sorted(set(statistics) - {*SUMMARY, "auroc_macro"})
    if unknown:
        raise DataError(f"Unknown statistic {unknown[0]}.", fix=f"Known: {', '.join(SUMMARY)}, auroc_macro.")
    result: dict[str, Floats] = {}
    if set(statistics) & set(SUMMARY):
        predicted = probabilities.argmax(1)
        confusions = resample_confusions(
            true, predicted, groups, probabilities.shape[1], resamples=resamples, seed=seed
        )
        result = {name: values for name, values in summaries(confusions).items() if name in statistics}
    if "auroc_macro" in statistics:
        count = min(resamples, auroc_resamples)
        aurocs = resample_aurocs(true, probabilities, groups, resamples=count, seed=seed)
        result["auroc_macro"] = macro_auroc(aurocs)
    return {name: result[name] for name in statistics}


def wilson(hits: int, images: int) -> Interval:
    """Wilson's 95 % score interval of a share (Wilson 1927), from two counts alone.

    Args:
        hits: Images that were right.
        images: All of them; NaN at both ends where there are none.
    """
    if images == 0:
        return Interval(float("nan"), float("nan"))
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    share, weight = hits / images, z * z / images
    middle = (share + weight / 2) / (1 + weight)
    reach = z / (1 + weight) * math.sqrt(share * (1 - share) / images + weight / images / 4)
    return Interval(max(0.0, middle - reach), min(1.0, middle + reach))


def interval_of(values: Floats) -> Interval:
    """The middle 95 % of resampled values; undefined ones are left out."""
    defined = values[np.isfinite(values)]
    if defined.size == 0:
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def resample_confusions(
    true: Integers,
    predicted: Integers,
    groups: Sequence[str] | npt.NDArray[Any],
    classes: int,
    *,
    resamples: int,
    seed: int,
) -> Counts:
    """Confusion matrices of resampled groups, (resamples, C, C) int64; none for fewer than two groups."""
    member, count = _membership(groups)
    cell = true.astype(np.int64) * classes + predicted
    by_group = sparse.csr_array(
        (np.ones(len(cell), np.int64), (cell, member)), shape=(classes * classes, count)
    )
    blocks = [(by_group @ weights.T).T for weights in _weights(count, resamples, seed)]
    stacked = np.concatenate(blocks) if blocks else np.zeros((0, classes * classes), np.int64)
    return stacked.reshape(-1, classes, classes)


def resample_aurocs(
    true: Integers,
    probabilities: npt.NDArray[np.floating[Any]],
    groups: Sequence[str] | npt.NDArray[Any],
    *,
    resamples: int,
    seed: int,
) -> Floats:
    """AUROC of each class in each resample, (resamples, C); NaN where a resample lost a class."""
    member, count = _membership(groups)
    classes = probabilities.shape[1]
    blocks = []
    for weights in _weights(count, resamples, seed, width=len(member)):
        drawn = weights.astype(np.float64)[:, member]
        areas = [weighted_auroc(probabilities[:, index], true == index, drawn) for index in range(classes)]
        blocks.append(np.stack(areas, axis=1))
    return np.concatenate(blocks) if blocks else np.zeros((0, classes))


def paired_difference(
    first_right: npt.NDArray[np.bool_],
    second_right: npt.NDArray[np.bool_],
    groups: Sequence[str] | npt.NDArray[Any],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Difference:
    """Difference of two networks' accuracies on the same images, resampled by group.

    Args:
        first_right: (N,) whether the first network got each image right.
        second_right: (N,) the same for the second. To average over training seeds, give the
            images of all seeds one after another with their groups.
        groups: (N,).

    The p-value is twice the smaller share of resamples on either side of zero (ties on both),
    with one added to each count, so it is never below ``2 / (resamples + 1)``; 1 for equal networks.

    Raises:
        DataError: No images, or different lengths.
    """
    if not len(first_right) == len(second_right) == len(groups) > 0:
        raise DataError(
            f"A paired comparison needs the same images: got {len(first_right)}, {len(second_right)} "
            f"results and {len(groups)} groups."
        )
    member, count = _membership(groups)
    gain = np.bincount(member, first_right.astype(np.float64) - second_right, minlength=count)
    size = np.bincount(member, minlength=count)
    blocks = [(weights @ gain) / (weights @ size) for weights in _weights(count, resamples, seed)]
    drawn = np.concatenate(blocks) if blocks else np.zeros(0)
    low, high = interval_of(drawn)
    first, second = float(first_right.mean()), float(second_right.mean())
    return Difference(first, second, first - second, low, high, two_sided(drawn), len(member), count)


def two_sided(differences: Floats) -> float:
    """Two-sided bootstrap p-value of a difference, from its resampled values, (resamples,).

    Twice the smaller share on either side of zero (ties on both), with one added to each count.
    """
    tail = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(differences) + 1))


def resample_sums(
    values: Floats, groups: Sequence[str] | npt.NDArray[Any], *, resamples: int, seed: int
) -> Floats:
    """Sums over images of resampled groups, float64 (resamples, K); none for fewer than two groups.

    Args:
        values: (N, K) finite values of each image.
        groups: (N,).
        resamples: Resamples of groups.
        seed: Same seed and same groups draw the same resamples.
    """
    member, count = _membership(groups)
    by_group = np.zeros((count, values.shape[1]))
    np.add.at(by_group, member, values)
    blocks = [weights @ by_group for weights in _weights(count, resamples, seed)]
    return np.concatenate(blocks) if blocks else np.zeros((0, values.shape[1]))


def _membership(groups: Sequence[str] | npt.NDArray[Any]) -> tuple[npt.NDArray[np.intp], int]:
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    return member, len(names)


def _weights(count: int, resamples: int, seed: int, *, width: int = 0) -> Iterator[Counts]:
    """How often each resample drew each group, (block, count), in blocks that fit memory."""
    if count < 2:
        return
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK // max(count, width))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        picked = rng.integers(count, size=(rows, count)) + np.arange(rows)[:, None] * count
        yield np.bincount(picked.ravel(), minlength=rows * count).reshape(rows, count).astype(np.int64)
