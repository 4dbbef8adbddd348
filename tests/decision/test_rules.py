"""From outputs to advice, and from sums to rules."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.decision.simulated import outputs

from fedlens.decision.advice import Advice, Findings, advise, refuse
from fedlens.decision.bundle import Basis
from fedlens.decision.modality import MODALITIES, colour_histogram
from fedlens.decision.rules import Rules
from fedlens.decision.settings import DecisionSettings
from fedlens.decision.totals import BasisTotals, ScoreTotals
from fedlens.decision.unlike import FeatureTotals
from fedlens.protocol.totals import Layout

CLASSES = ("a", "b", "c", "d")
SETTINGS = DecisionSettings()
CERTAIN = Findings(("a",), 0.97)


@pytest.mark.parametrize(
    ("found", "kind", "said"),
    [
        (CERTAIN, "report", "a with probability 97%"),
        (Findings((), 0.4), "refer", "no class is likely enough"),
        (Findings(("a", "b"), 0.6), "refer", "2 classes are possible (a, b)"),
        (Findings(tuple("abcdef"), 0.6), "refer", "6 classes are possible (a, b, c, d and 2 more)"),
        (Findings(("a",), 0.97, unlike=True), "refer", "unlike the training images"),
        (Findings(("a",), 0.97, uncertain=True), "refer", "least certain"),
        (Findings(("a",), 0.97, straying="41 % on hairs"), "refer", "the map strays: 41 % on hairs"),
    ],
)
def test_every_reason_is_said(found: Findings, kind: str, said: str) -> None:
    advice = advise(found, SETTINGS)
    assert advice.kind == kind and said in advice.sentence()


def test_reasons_add_up_and_refusals_have_one() -> None:
    assert len(advise(Findings((), 0.3, True, True, "x"), SETTINGS).reasons) == 4
    assert advise(Findings(("a", "b"), 0.6), DecisionSettings(largest_set=2)).kind == "report"
    assert refuse("grey") == Advice("refused", ("grey",))


def totals(start: int, end: int, seed: int = 0) -> tuple[BasisTotals, np.ndarray, np.ndarray, np.ndarray]:
    """First step over some of 400 images that one seed draws."""
    log_p, labels = outputs(400, seed=seed)
    features = np.random.default_rng(seed).normal(size=(400, 6)) + labels[:, None]
    rows = slice(start, end)
    kinds = np.full(400, MODALITIES.index("mri"), np.int64)
    basis = BasisTotals.of(
        log_p[rows],
        labels[rows],
        FeatureTotals.of(features[rows], labels[rows], 4),
        colour_histogram(np.zeros(400)[rows], kinds[rows]),
    )
    return basis, log_p[rows], labels[rows], features[rows]


def fitted(settings: DecisionSettings = SETTINGS) -> tuple[Rules, np.ndarray, np.ndarray, np.ndarray]:
    sums, log_p, labels, features = totals(0, 400)
    basis = Basis.fit(sums, settings)
    scores = ScoreTotals.of(log_p, labels, basis.statistics.distances(features))
    return (
        Rules.fit(CLASSES, settings, basis.temperature, basis.statistics, scores),
        log_p,
        labels,
        features,
    )


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**20), st.lists(st.integers(0, 400), min_size=3, max_size=3))
def test_hospitals_sums_sealed_or_not_are_the_pooled_ones(seed: int, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), 400]
    pairs = list(itertools.pairwise(edges))
    pooled, log_p, labels, features = totals(0, 400, seed)
    layout = Layout({name: array.shape for name, array in BasisTotals.zero(4, 6).numbers().items()})
    vectors = [layout.flatten(totals(*pair, seed)[0].numbers()) for pair in pairs]
    federation = BasisTotals.from_numbers(layout.restore(np.sum(vectors, axis=0)))
    for name, array in pooled.numbers().items():
        assert array.dtype == np.int64 and np.array_equal(federation.numbers()[name], array), name

    statistics = Basis.fit(federation, SETTINGS).statistics
    whole = ScoreTotals.of(log_p, labels, statistics.distances(features))
    parts = ScoreTotals.zero(4)
    for start, end in pairs:
        own = statistics.distances(features[start:end])
        parts += ScoreTotals.of(log_p[start:end], labels[start:end], own)
    scores = Layout({name: array.shape for name, array in ScoreTotals.zero(4).numbers().items()})
    assert np.array_equal(scores.flatten(parts.numbers()), scores.flatten(whole.numbers()))


def test_advice_follows_from_the_rules() -> None:
    rules, log_p, labels, features = fitted()
    judged = rules.judge(log_p, features)
    sets = rules.conformal.sets(rules.scaled(log_p))
    for row, entry in enumerate(judged):
        assert {CLASSES.index(name) for name in entry.label_set} == set(np.flatnonzero(sets[row]))
        assert sum(entry.probabilities) == pytest.approx(1)
        chances = [entry.probabilities[CLASSES.index(name)] for name in entry.label_set]
        assert chances == sorted(chances, reverse=True)
        like = "unlike" not in entry.advice.sentence()
        assert (entry.advice.kind == "report") == (len(entry.label_set) == 1 and like)
    covered = np.mean(
        [CLASSES[label] in entry.label_set for entry, label in zip(judged, labels, strict=True)]
    )
    assert covered == pytest.approx(0.9, abs=0.05)
    far = rules.judge(log_p[:1], features[:1] + 30)[0]
    assert "unlike" in far.advice.sentence() and far.distance > 10


def test_straying_is_a_reason_unless_switched_off() -> None:
    rules, log_p, _, features = fitted()
    assert "hairs" in rules.judge(log_p[:1], features[:1], ["on hairs"])[0].advice.sentence()
    rules, *_ = fitted(DecisionSettings(straying=False))
    assert "hairs" not in rules.judge(log_p[:1], features[:1], ["on hairs"])[0].advice.sentence()


def test_a_referral_rate_is_met_where_it_was_measured() -> None:
    for rate in (0.1, 0.2, 0.5):
        rules, log_p, _, _ = fitted(DecisionSettings(referral_rate=rate))
        share = rules.uncertain(log_p).mean()
        assert rate <= share <= rate + 0.05
    assert not fitted()[0].uncertain(log_p).any()


def test_operating_points_keep_their_sensitivity() -> None:
    rules, log_p, labels, _ = fitted(DecisionSettings(sensitivity=0.9))
    found = rules.found(log_p)
    for label in range(4):
        own = labels == label
        assert 0.9 <= found[own, label].mean() < 0.9 + 0.06
    assert all(0 < value < 1 for value in rules.thresholds().values())
