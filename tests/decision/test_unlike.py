"""Distances from the training images, from sums over hospitals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlens.decision.scores import BINS
from fedlens.decision.unlike import (
    MOST_FEATURE,
    FeatureStatistics,
    FeatureTotals,
    distance_bin,
    distance_histogram,
)
from fedlens.errors import DataError


def draw(images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, images)
    mixing = rng.normal(size=(5, 5))
    return rng.normal(size=(images, 5)) @ mixing + 3.0 * labels[:, None], labels


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**20), st.integers(0, 50))
def test_grouping_of_images_changes_nothing(seed: int, cut: int) -> None:
    features, labels = draw(50, seed)
    parts = FeatureTotals.of(features[:cut], labels[:cut], 3) + FeatureTotals.of(
        features[cut:], labels[cut:], 3
    )
    whole = FeatureTotals.of(features, labels, 3)
    for name in ("sums", "counts", "products"):
        assert (getattr(parts, name) == getattr(whole, name)).all()


def test_statistics_are_those_of_the_pooled_images() -> None:
    features, labels = draw(5000)
    statistics = FeatureStatistics.fit(FeatureTotals.of(features, labels, 3), shrinkage=1e-6)

    means = np.stack([features[labels == label].mean(0) for label in range(3)])
    centred = features - means[labels]
    covariance = centred.T @ centred / len(features)

    np.testing.assert_allclose(statistics.means, means, atol=1e-3)
    precision = statistics.whitening.T @ statistics.whitening
    np.testing.assert_allclose(precision @ covariance, np.eye(5), atol=0.01)
    nearest = min(
        float((features[0] - mean) @ np.linalg.inv(covariance) @ (features[0] - mean)) / 5 for mean in means
    )
    assert statistics.distances(features[:1])[0] == pytest.approx(nearest, rel=0.01)


def test_what_is_far_away_is_further() -> None:
    features, labels = draw(400)
    statistics = FeatureStatistics.fit(FeatureTotals.of(features, labels, 3), shrinkage=0.1)
    held_out = statistics.distances(draw(400, seed=0)[0])
    assert np.median(held_out) == pytest.approx(0.8, abs=0.4)
    assert statistics.distances(features + 9).min() > np.quantile(held_out, 0.99)


def test_odd_features_do_no_harm() -> None:
    features, labels = draw(60)
    features[:, 2] = 0.0
    features[0, 3] = 1e9
    totals = FeatureTotals.of(features, np.minimum(labels, 1), 3)
    statistics = FeatureStatistics.fit(totals, shrinkage=0.1)
    assert np.isnan(statistics.means[2]).all() and np.isfinite(statistics.distances(features)).all()
    assert np.abs(totals.products).max() <= 60 * (MOST_FEATURE * 2048) ** 2
    with pytest.raises(DataError, match="diverged"):
        FeatureTotals.of(np.full((1, 2), np.nan), np.zeros(1, np.int64), 2)
    with pytest.raises(DataError, match="nothing"):
        FeatureStatistics.fit(FeatureTotals.zero(2, 3), shrinkage=0.1)


@given(st.lists(st.floats(0, 1e9), min_size=2, max_size=20))
def test_bins_of_distances_are_monotone(distances: list[float]) -> None:
    ordered = np.sort(np.array(distances))
    found = distance_bin(ordered)
    assert (np.diff(found) >= 0).all() and found.min() >= 0 and found.max() < BINS
    assert distance_histogram(ordered).sum() == len(distances)
    assert distance_bin(np.array([np.nan]))[0] == BINS - 1
