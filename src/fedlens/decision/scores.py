"""Scores of a softmax on the scale of log odds, and the bins in which they are counted.

Probabilities of a good network crowd near 0 and 1, where equal bins would tell nothing apart: nine of
ten images may have p > 0.999. Their log odds spread out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

from fedlens.errors import DataError

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

BINS = 1000
MOST_LOG_ODDS = 20.0
"""Log odds beyond this, p = 2e-9 from certainty, count into the first or last bin."""

_LEAST = 1e-38


def log_probabilities(probabilities: npt.NDArray[np.floating[Any]]) -> Floats:
    """Logarithms of softmax outputs, float64 (N, C); logits up to each row's constant.

    Args:
        probabilities: (N, C), 0..1; what has underflown to 0 counts as 1e-38.
    """
    logarithms: Floats = np.log(np.maximum(probabilities.astype(np.float64), _LEAST))
    return logarithms


def scaled(log_p: Floats, temperature: float) -> Floats:
    """Log probabilities at a temperature, float64 (N, C): ``log softmax(log_p / temperature)``.

    Softmax ignores what is added to a whole row, so log probabilities do where logits were not kept.

    Args:
        log_p: (N, C) log probabilities or logits.
        temperature: Above 0; above 1 softens.
    """
    result: Floats = log_softmax(log_p / temperature, axis=1)
    return result


def log_odds(log_p: Floats) -> Floats:
    """Of every class against all others, float64 (N, C): ``log(p / (1 - p))``.

    Args:
        log_p: (N, C) normalised log probabilities.
    """
    return log_p - _log_rest(log_p)


def lac_scores(log_p: Floats) -> Floats:
    """How ill each class fits each image, (N, C): log odds of any other class.

    Ranks as ``1 - p`` does (least ambiguous set-valued classifiers, Sadinle, Lei and Wasserman 2019).
    """
    return -log_odds(log_p)


def aps_scores(log_p: Floats) -> Floats:
    """How ill each class fits each image, (N, C): log odds of it and all likelier classes together.

    Adaptive prediction sets (Romano, Sesia and Candès 2020) without their random part, so that an image
    gets the same set every time; sets are larger than need be for it. Classes of equal probability count
    in the order of the outputs.
    """
    order = np.argsort(-log_p, axis=1, kind="stable")
    ranked = np.exp(np.take_along_axis(log_p, order, axis=1))
    here = np.cumsum(ranked, axis=1)
    # Summed from the small end: what is left after a class is not lost in rounding near 1.
    upwards = np.cumsum(ranked[:, ::-1], axis=1)[:, ::-1]
    rest = np.concatenate([upwards[:, 1:], np.zeros((len(ranked), 1))], axis=1)
    with np.errstate(divide="ignore"):
        odds = np.log(here) - np.log(rest)
    scores: Floats = np.empty_like(odds)
    np.put_along_axis(scores, order, odds, axis=1)
    return scores


def bin_of(values: Floats) -> Counts:
    """Bin 0..999 of log odds, int64 of the same shape; monotone, with open ends.

    Raises:
        DataError: A value is not a number.
    """
    if np.isnan(values).any():
        raise DataError(
            "Some probabilities are not numbers.",
            why="The network has diverged, or these are not softmax outputs.",
            fix="Choose another round's network, or train again with a lower learning rate.",
        )
    share = (np.clip(values, -MOST_LOG_ODDS, MOST_LOG_ODDS) + MOST_LOG_ODDS) / (2 * MOST_LOG_ODDS)
    filled: Counts = np.minimum((share * BINS).astype(np.int64), BINS - 1)
    return filled


def bin_edges() -> Floats:
    """Log odds where bins begin and end, float64 (1001,); the outermost are open."""
    edges = np.linspace(-MOST_LOG_ODDS, MOST_LOG_ODDS, BINS + 1)
    edges[0], edges[-1] = -np.inf, np.inf
    return edges


def _log_rest(log_p: Floats) -> Floats:
    """log(1 - p) of every class, from the others' probabilities; -inf where these have underflown."""
    p = np.exp(log_p)
    classes = p.shape[1]
    # One class left out at a time: 1 - p itself would round to 0 for the likeliest class.
    rest = np.stack([np.delete(p, index, axis=1).sum(axis=1) for index in range(classes)], axis=1)
    with np.errstate(divide="ignore"):
        logarithm: Floats = np.log(rest)
    return logarithm
