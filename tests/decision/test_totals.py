"""What hospitals' sums for advice can be, and what they cannot."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.decision.simulated import outputs

from fedlens.decision.modality import colour_histogram
from fedlens.decision.totals import BasisTotals, ScoreTotals
from fedlens.decision.unlike import MOST_FEATURE, FeatureTotals

CLASSES, FEATURES = 3, 5
Lie = Callable[[Any], dict[str, Any]]


def basis(images: int, seed: int = 0, spread: float = 1.0) -> BasisTotals:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, images)
    features = spread * rng.normal(size=(images, FEATURES)) + labels[:, None]
    log_p, true = outputs(max(1, images // 3), CLASSES, seed=seed)
    colours = colour_histogram(rng.uniform(0, 255, images), rng.integers(0, 5, images))
    return BasisTotals.of(log_p, true, FeatureTotals.of(features, labels, CLASSES), colours)


def scores(images: int, seed: int = 0) -> ScoreTotals:
    log_p, labels = outputs(images, CLASSES, seed=seed)
    return ScoreTotals.of(log_p, labels, np.random.default_rng(seed).uniform(0, 9, images))


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=4),
    st.integers(0, 2**20),
    st.sampled_from([0, 1e-9, 1, 1e4]),
)
def test_what_images_give_is_possible(images: list[int], seed: int, spread: float) -> None:
    """Of no images, of one, of images that are all alike, and of features beyond the cut too."""
    firsts = [basis(count, seed + place, spread) for place, count in enumerate(images)]
    seconds = [scores(count, seed + place) for place, count in enumerate(images)]
    assert all(totals.possible() for totals in (*firsts, *seconds))
    first = sum(firsts, start=BasisTotals.zero(CLASSES, FEATURES))
    second = sum(seconds, start=ScoreTotals.zero(CLASSES))
    assert first.possible(len(images)) and second.possible(len(images))


def test_rounding_does_not_make_an_honest_sum_impossible() -> None:
    """The largest features that there are, all alike: products of 2^45 less what is just as large."""
    features = np.full((9000, 40), MOST_FEATURE)
    labels = np.arange(9000) % CLASSES
    totals = FeatureTotals.of(features, labels, CLASSES)
    assert totals.possible()
    many = FeatureTotals(totals.sums << 8, totals.counts << 8, totals.products << 8)
    assert many.possible()


BASIS_LIES: dict[str, Lie] = {
    "negative counts": lambda totals: {"counts": totals.counts - 1000},
    "more images than a hospital has": lambda totals: {
        "counts": totals.counts << 30,
        "colours": totals.colours << 30,
    },
    "sums beyond what the counts allow": lambda totals: {"sums": totals.sums + (1 << 40)},
    "the least number there is": lambda totals: {"sums": np.full_like(totals.sums, -(2**63))},
    "products beyond what the counts allow": lambda totals: {"products": totals.products + (1 << 60)},
    "a negative spread": lambda totals: {"products": -totals.products},
    "a spread that is too small for the means": lambda totals: {"products": totals.products // 2},
    "no spread of one feature and its product with others": lambda totals: {
        "products": totals.products * (np.arange(len(totals.products)) != 0)
    },
    "colours of other images": lambda totals: {"colours": totals.colours + 1},
    "negative colours": lambda totals: {"colours": totals.colours - totals.colours.max() * 2},
    "negative losses": lambda totals: {"losses": totals.losses - (1 << 50)},
    "losses beyond what totals hold": lambda totals: {"losses": totals.losses + (1 << 55)},
}
SCORE_LIES: dict[str, Lie] = {
    "negative counts": lambda totals: {"lac": totals.lac - 5},
    "images in one histogram only": lambda totals: {"aps": totals.aps + 1},
    "images of another class": lambda totals: {"positives": totals.positives[::-1]},
    "negatives of other images": lambda totals: {"negatives": totals.negatives + totals.positives},
    "likeliest classes of other images": lambda totals: {"certainty": 2 * totals.certainty},
    "distances of other images": lambda totals: {"distances": 2 * totals.distances},
    "more images than a hospital has": lambda totals: {
        name: array << 30 for name, array in totals.numbers().items()
    },
    "random masks": lambda totals: {
        name: np.random.default_rng(0).integers(-(2**63), 2**63 - 1, array.shape)
        for name, array in totals.numbers().items()
    },
}


@pytest.mark.parametrize("lie", list(BASIS_LIES))
def test_impossible_first_sums_are_found(lie: str) -> None:
    honest = basis(60)
    assert honest.possible()
    assert not dataclasses.replace(honest, **BASIS_LIES[lie](honest)).possible()


@pytest.mark.parametrize("lie", list(SCORE_LIES))
def test_impossible_second_sums_are_found(lie: str) -> None:
    honest = scores(60)
    assert honest.possible()
    assert not dataclasses.replace(honest, **SCORE_LIES[lie](honest)).possible()
