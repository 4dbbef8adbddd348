"""Calibration error, coverage and risk, against plain definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlens.metrics.calibration import (
    Binning,
    covered,
    reliability,
    risk_by_referral,
    risk_reduction,
    set_sizes,
    share_of,
)


def draw(images: int, *, bias: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidences, whether right (as often as they say less a bias), and groups of two."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.4, 1.0, images)
    right = rng.random(images) < confidence - bias
    return confidence, right, np.arange(images) // 2


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 200), st.integers(0, 1000))
def test_ece_is_its_definition(images: int, seed: int) -> None:
    confidence, right, groups = draw(images, seed=seed)
    expected = 0.0
    for low in range(15):
        inside = (confidence >= low / 15) & ((confidence < (low + 1) / 15) | (low == 14))
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    found = reliability(confidence, right, groups, resamples=10)
    assert found.ece == pytest.approx(expected)
    assert found.counts.sum() == images and np.isnan(found.accuracy[found.counts == 0]).all()


@pytest.mark.parametrize("binning", ["width", "mass"])
def test_a_bias_is_seen_and_truth_has_only_noise(binning: Binning) -> None:
    true = reliability(*draw(20000), binning=binning, resamples=200)
    off = reliability(*draw(20000, bias=0.1), binning=binning, resamples=200)
    assert true.ece < 0.015 and true.ece == pytest.approx(true.floor, rel=0.8)
    assert off.low < off.ece < off.high and off.ece == pytest.approx(0.1, abs=0.01)
    assert off.low > true.high


def test_bins_of_equal_mass_hold_equally_many() -> None:
    confidence, right, groups = draw(1500)
    counts = reliability(confidence**8, right, groups, binning="mass", resamples=10).counts
    assert counts.max() - counts.min() <= 1


def test_equal_probabilities_share_a_bin() -> None:
    ones, groups = np.ones(90), np.arange(90)
    found = reliability(ones, np.arange(90) % 2 == 0, groups, binning="mass", resamples=10)
    assert found.ece == pytest.approx(0.5) and (found.counts > 0).sum() == 1


def test_risk_falls_as_the_least_certain_are_referred() -> None:
    confidence, right, _ = draw(5000)
    risk = risk_by_referral(confidence, right, [0.0, 0.2, 0.5, 1.0])
    assert risk[0] == pytest.approx((~right).mean())
    order = np.argsort(-confidence)
    assert risk[1] == pytest.approx((~right[order[:4000]]).mean())
    assert risk[0] > risk[1] > risk[2] and np.isnan(risk[3])
    # Where nothing tells images apart, referral changes nothing.
    assert risk_by_referral(np.ones(10), np.arange(10) < 7, [0.5]) == pytest.approx([0.3])


def test_shares_and_reductions_have_intervals_by_group() -> None:
    confidence, right, groups = draw(4000)
    share = share_of(right, groups)
    assert share.low < share.value < share.high and share.value == right.mean() and share.images == 4000
    # Two copies of every image in one group say no more than one.
    alone = share_of(right[::2], groups[::2])
    twice = share_of(np.repeat(right[::2], 2), np.repeat(groups[::2], 2))
    assert twice.high - twice.low == pytest.approx(alone.high - alone.low, rel=1e-6)
    assert np.isnan(share_of(right, groups, np.zeros(4000, np.bool_)).value)

    referred = confidence < np.quantile(confidence, 0.2)
    value, interval = risk_reduction(referred, right, groups)
    assert value == pytest.approx(1 - (~right[~referred]).mean() / (~right).mean())
    assert interval.low < value < interval.high
    assert np.isnan(risk_reduction(referred, np.ones(4000, np.bool_), groups)[0])


def test_sets() -> None:
    sets = np.array([[True, False, False], [False, False, False], [True, True, False]])
    assert set_sizes(sets).tolist() == [1, 1, 1, 0]
    assert covered(sets, np.array([0, 0, 1])).tolist() == [True, False, True]
