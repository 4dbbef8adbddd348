"""Coverage that holds, from histograms that add up."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.decision.simulated import outputs

from fedlens.decision.conformal import ConformalRule, Score, last_bin, score_bins, score_histogram
from fedlens.decision.scores import BINS, aps_scores, bin_of, lac_scores

SCORES: tuple[Score, ...] = ("lac", "aps")


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(-25, 25), min_size=1, max_size=60), st.sampled_from([0.5, 0.8, 0.9, 0.95]))
def test_the_last_bin_is_that_of_the_sorted_quantile(scores: list[float], coverage: float) -> None:
    rank = math.ceil(round((len(scores) + 1) * coverage, 9))
    histogram = np.bincount(bin_of(np.array(scores)), minlength=BINS)
    found = last_bin(histogram, coverage)
    if rank > len(scores):
        assert found == BINS - 1
    else:
        assert found == bin_of(np.array(sorted(scores)[rank - 1 : rank]))[0]


@settings(deadline=None, max_examples=10)
@given(st.sampled_from(SCORES), st.sampled_from([0.8, 0.9]), st.integers(0, 1000))
def test_sets_cover_as_promised_on_average(score: Score, coverage: float, seed: int) -> None:
    hits = []
    for draw in range(40):
        log_p, labels = outputs(600, seed=1000 * seed + draw)
        rule = ConformalRule.fit(
            score_histogram(log_p[:200], labels[:200], score), coverage, score=score, per_class=False
        )
        hits.append(rule.sets(log_p[200:])[np.arange(400), labels[200:]].mean())
    # Four standard errors of the mean over draws of both parts; aps sets, without chance, hold more.
    room = 4 * math.sqrt(coverage * (1 - coverage) * (1 / 200 + 1 / 400) / 40)
    assert np.mean(hits) >= coverage - room
    assert score == "aps" or np.mean(hits) <= coverage + 1 / 200 + 0.01 + room


def test_histograms_are_within_one_bin_of_sorting() -> None:
    log_p, labels = outputs(3000)
    for score, exact in (("lac", lac_scores(log_p)), ("aps", aps_scores(log_p))):
        own = np.sort(exact[np.arange(3000), labels])
        threshold = own[math.ceil(3001 * 0.9) - 1]
        by_sorting = exact <= threshold
        rule = ConformalRule.fit(score_histogram(log_p, labels, score), 0.9, score=score, per_class=False)
        sets = rule.sets(log_p)
        assert (sets >= by_sorting).all(), "never smaller than the exact sets"
        extra = sets & ~by_sorting
        assert (bin_of(exact[extra]) == bin_of(np.array([threshold]))[0]).all()


def test_by_class_each_class_is_covered() -> None:
    log_p, labels = outputs(6000, sharpness=1.5, seed=3)
    log_p = log_p + np.array([1.0, 0, 0, -1.0])
    first, second = slice(0, 3000), slice(3000, None)
    histogram = score_histogram(log_p[first], labels[first], "lac")
    pooled = ConformalRule.fit(histogram, 0.9, score="lac", per_class=False)
    by_class = ConformalRule.fit(histogram, 0.9, score="lac", per_class=True)

    def coverage(rule: ConformalRule) -> list[float]:
        hit = rule.sets(log_p[second])[np.arange(3000), labels[second]]
        return [float(hit[labels[second] == label].mean()) for label in range(4)]

    assert min(coverage(pooled)) < 0.85
    assert coverage(by_class) == pytest.approx([0.9] * 4, abs=0.04)


def test_too_few_images_promise_nothing_and_let_all_in() -> None:
    log_p, labels = outputs(8)
    rule = ConformalRule.fit(score_histogram(log_p, labels, "lac"), 0.9, score="lac", per_class=False)
    assert rule.sets(log_p).all() and rule.images == 8
    assert last_bin(np.zeros(BINS, np.int64), 0.9) == BINS - 1
    # Nine images are just enough: the rank is exactly nine, whatever floating point makes of 10 * 0.9.
    assert last_bin(np.bincount(np.arange(9), minlength=BINS), 0.9) == 8


def test_histograms_add_up_over_hospitals() -> None:
    log_p, labels = outputs(300)
    for score in SCORES:
        parts = sum(
            score_histogram(log_p[start : start + 100], labels[start : start + 100], score)
            for start in (0, 100, 200)
        )
        assert (parts == score_histogram(log_p, labels, score)).all()
        assert score_bins(log_p, score).shape == (300, 4)
