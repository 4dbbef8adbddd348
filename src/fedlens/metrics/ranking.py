"""Area under the ROC curve, exact from scores or nearly so from histograms of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fedlens.errors import DataError
from fedlens.metrics.classification import Counts, Floats, Integers


def auroc(true: Integers, probabilities: npt.NDArray[np.floating[Any]]) -> Floats:
    """One-against-rest AUROC of each class, (C,) float64; ties count half.

    Args:
        true: (N,) classes.
        probabilities: (N, C) scores; any monotone score serves.

    Returns:
        NaN for a class that no image, or every image, belongs to.
    """
    weights = np.ones((1, len(true)))
    return np.array(
        [
            weighted_auroc(probabilities[:, index], true == index, weights)[0]
            for index in range(probabilities.shape[1])
        ]
    )


def macro_auroc(per_class: Floats) -> Floats:
    """Mean over the last axis of the classes whose AUROC is defined; NaN where none is."""
    defined = np.isfinite(per_class)
    total = np.where(defined, per_class, 0.0).sum(-1)
    count = defined.sum(-1)
    mean: Floats = np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)
    return mean


def weighted_auroc(
    scores: npt.NDArray[np.floating[Any]], positive: npt.NDArray[np.bool_], weights: Floats
) -> Floats:
    """AUROC under many weightings of the same images, (R,).

    Args:
        scores: (N,).
        positive: (N,).
        weights: (R, N) not negative; each row is one weighting, e.g. how often a resample drew each image.
    """
    if len(scores) == 0:
        return np.full(len(weights), np.nan)
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    starts = np.concatenate(([0], np.flatnonzero(ranked[1:] != ranked[:-1]) + 1))
    in_order = weights[:, order]
    hits = in_order * positive[order]
    misses = in_order - hits
    if len(starts) < len(scores):
        hits, misses = (np.add.reduceat(part, starts, axis=1) for part in (hits, misses))
    return _area(hits, misses)


def score_histograms(
    true: Integers, probabilities: npt.NDArray[np.floating[Any]], classes: int, bins: int = 1000
) -> tuple[Counts, Counts]:
    """Histograms of each class's probability over images of the class and over all others.

    They add up over hospitals, so that the coordinator gets an AUROC without any image's score.

    Returns:
        Positives and negatives, each (classes, bins) int64; bin b holds b/bins <= p < (b+1)/bins,
        and the last one also p = 1.

    Raises:
        DataError: A probability outside 0..1 or not finite.
    """
    if probabilities.size and not (probabilities.min() >= 0 and probabilities.max() <= 1.001):
        raise DataError(
            "Some probabilities are not finite or lie outside 0..1.",
            why="The network has diverged, or these are not softmax outputs.",
            fix="Lower the learning rate.",
        )
    # The product in float64: in float32 it can round up over a bin's edge.
    filled = np.minimum((probabilities.astype(np.float64) * bins).astype(np.int64), bins - 1)
    offset = filled + np.arange(classes) * bins
    everyone = np.bincount(offset.ravel(), minlength=classes * bins)
    own = np.bincount(offset[np.arange(len(true)), true], minlength=classes * bins)
    positives = own.reshape(classes, bins).astype(np.int64)
    return positives, everyone.reshape(classes, bins).astype(np.int64) - positives


def auroc_from_histograms(positives: npt.NDArray[Any], negatives: npt.NDArray[Any]) -> Floats:
    """AUROC of each class, (C,), from (C, bins) histograms; scores within one bin count as ties.

    Differs from the exact figure by at most half the share of pairs that fall into the same bin.
    """
    return _area(positives.astype(np.float64), negatives.astype(np.float64))


def _area(hits: Floats, misses: Floats) -> Floats:
    """AUROC from weights of positives and negatives at rising scores, over the last axis."""
    below = np.cumsum(misses, axis=-1) - misses / 2
    won = (hits * below).sum(-1)
    pairs = hits.sum(-1) * misses.sum(-1)
    area: Floats = np.divide(won, pairs, out=np.full(won.shape, np.nan), where=pairs > 0)
    return area
