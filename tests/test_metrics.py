from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as known

from fedlens.errors import DataError
from fedlens.metrics import (
    SUMMARY,
    auroc,
    auroc_from_histograms,
    bootstrap,
    confusion_matrix,
    draws,
    macro_auroc,
    paired_difference,
    per_class,
    resample_aurocs,
    resample_confusions,
    resample_sums,
    score_histograms,
    summarise,
    two_sided,
    wilson,
)


def some_predictions(
    images: int = 300, classes: int = 4, seed: int = 0, skill: float = 1.5
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    true = rng.integers(classes, size=images)
    logits = rng.normal(size=(images, classes))
    logits[np.arange(images), true] += skill
    shares = np.exp(logits)
    return true, (shares / shares.sum(1, keepdims=True)).astype(np.float32)


def test_confusion_matrix_has_true_classes_in_rows() -> None:
    confusion = confusion_matrix(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1]), 3)
    assert confusion.dtype == np.int64
    assert confusion.tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 0]]


@pytest.mark.parametrize(("true", "predicted"), [([0, 3], [0, 0]), ([0, 0], [0, -1]), ([0], [0, 1])])
def test_confusion_matrix_refuses_what_does_not_fit(true: list[int], predicted: list[int]) -> None:
    with pytest.raises(DataError):
        confusion_matrix(np.array(true), np.array(predicted), 3)


def test_confusion_matrix_of_no_images_is_zero_and_so_are_its_figures() -> None:
    empty = np.zeros(0, np.int64)
    confusion = confusion_matrix(empty, empty, 2)
    assert confusion.tolist() == [[0, 0], [0, 0]]
    assert set(summarise(confusion).values()) == {0.0}


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60))
def test_summaries_agree_with_sklearn_over_classes_that_have_images(pairs: list[tuple[int, int]]) -> None:
    true, predicted = (np.array(column) for column in zip(*pairs, strict=True))
    ours = summarise(confusion_matrix(true, predicted, 5))
    present = np.unique(true)
    assert set(ours) == set(SUMMARY)
    assert ours["accuracy"] == pytest.approx(known.accuracy_score(true, predicted))
    for average in ("macro", "weighted"):
        precision, recall, f1, _ = known.precision_recall_fscore_support(
            true, predicted, labels=present, average=average, zero_division=0
        )
        assert ours[f"precision_{average}"] == pytest.approx(precision)
        assert ours[f"recall_{average}"] == pytest.approx(recall)
        assert ours[f"f1_{average}"] == pytest.approx(f1)
    assert ours["balanced_accuracy"] == ours["recall_macro"]


def test_per_class_agrees_with_sklearn() -> None:
    true, probabilities = some_predictions()
    predicted = probabilities.argmax(1)
    rows = per_class(confusion_matrix(true, predicted, 4))
    for index, row in enumerate(rows):
        is_true, is_called = true == index, predicted == index
        assert row["recall"] == pytest.approx(known.recall_score(is_true, is_called))
        assert row["specificity"] == pytest.approx(known.recall_score(~is_true, ~is_called))
        assert row["precision"] == pytest.approx(known.precision_score(is_true, is_called))
        assert row["f1"] == pytest.approx(known.f1_score(is_true, is_called))
        assert row["support"] == is_true.sum()


@settings(deadline=None, max_examples=40)
@given(
    hnp.arrays(np.int64, 40, elements=st.integers(0, 2)),
    hnp.arrays(np.float32, (40, 3), elements=st.sampled_from([0.0, 0.1, 0.5, 0.75, 1.0])),
)
def test_auroc_agrees_with_sklearn_with_ties(true: np.ndarray, scores: np.ndarray) -> None:
    ours = auroc(true, scores)
    for index in range(3):
        positive = true == index
        if positive.all() or not positive.any():
            assert np.isnan(ours[index])
        else:
            assert ours[index] == pytest.approx(known.roc_auc_score(positive, scores[:, index]))


def test_macro_auroc_leaves_undefined_classes_out() -> None:
    assert macro_auroc(np.array([0.5, np.nan, 1.0])) == pytest.approx(0.75)
    assert np.isnan(macro_auroc(np.array([np.nan, np.nan])))


def test_histograms_add_up_over_hospitals_and_give_nearly_the_exact_auroc() -> None:
    true, probabilities = some_predictions(2000)
    here = score_histograms(true[:700], probabilities[:700], 4)
    there = score_histograms(true[700:], probabilities[700:], 4)
    positives, negatives = score_histograms(true, probabilities, 4)
    assert positives.dtype == np.int64 and positives.shape == (4, 1000)
    assert (here[0] + there[0] == positives).all() and (here[1] + there[1] == negatives).all()
    assert positives.sum(1).tolist() == np.bincount(true, minlength=4).tolist()
    exact = auroc(true, probabilities)
    assert auroc_from_histograms(positives, negatives) == pytest.approx(exact, abs=1e-3)


def test_a_probability_of_one_lands_in_the_last_bin() -> None:
    positives, negatives = score_histograms(np.array([0]), np.array([[1.0, 0.0]], np.float32), 2, bins=10)
    assert positives[0].tolist() == [0] * 9 + [1]
    assert negatives[1].tolist() == [1] + [0] * 9
    assert np.isnan(auroc_from_histograms(positives, negatives)).all()


@pytest.mark.parametrize("bad", [np.nan, -0.1, 2.0])
def test_histograms_refuse_what_is_no_probability(bad: float) -> None:
    with pytest.raises(DataError, match="probabilities"):
        score_histograms(np.array([0]), np.array([[bad, 0.5]], np.float32), 2)


def test_resampled_confusions_keep_groups_whole() -> None:
    true = np.array([0, 0, 1, 1, 1])
    groups = ["a", "a", "b", "b", "b"]
    confusions = resample_confusions(true, true, groups, 2, resamples=200, seed=1)
    seen = {tuple(confusion.ravel()) for confusion in confusions}
    assert seen == {(4, 0, 0, 0), (2, 0, 0, 3), (0, 0, 0, 6)}


def test_bootstrap_interval_is_as_wide_as_theory_says() -> None:
    rng = np.random.default_rng(3)
    images = 2000
    right = rng.random(images) < 0.8
    probabilities = np.stack([right, ~right], 1).astype(np.float32)
    true = np.zeros(images, np.int64)
    low, high = bootstrap(true, probabilities, np.arange(images).astype(str), ["accuracy"])["accuracy"]
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.8 * 0.2 / images), rel=0.1)
    assert low < right.mean() < high


def test_images_of_one_patient_widen_the_interval() -> None:
    right = np.repeat(np.random.default_rng(0).random(100) < 0.8, 10)
    probabilities = np.stack([right, ~right], 1).astype(np.float32)
    true = np.zeros(1000, np.int64)
    alone = bootstrap(true, probabilities, np.arange(1000).astype(str), ["accuracy"])["accuracy"]
    patients = np.repeat(np.arange(100), 10).astype(str)
    grouped = bootstrap(true, probabilities, patients, ["accuracy"])["accuracy"]
    assert grouped.high - grouped.low > 2.5 * (alone.high - alone.low)


def test_auroc_resamples_are_the_auroc_of_repeated_images() -> None:
    true, probabilities = some_predictions(60, 3)
    groups = np.repeat(np.arange(20), 3).astype(str)
    drawn = resample_aurocs(true, probabilities, groups, resamples=5, seed=7)
    picks = np.random.default_rng(7).integers(20, size=(5, 20))
    names = np.unique(groups)
    for values, pick in zip(drawn, picks, strict=True):
        rows = np.concatenate([np.flatnonzero(groups == names[group]) for group in pick])
        assert values == pytest.approx(auroc(true[rows], probabilities[rows]), nan_ok=True)


def test_bootstrap_is_repeatable_and_leaves_its_inputs_alone() -> None:
    true, probabilities = some_predictions()
    groups = np.arange(300).astype(str)
    before = true.copy(), probabilities.copy()
    names = ["auroc_macro", "f1_macro", "accuracy"]
    first = bootstrap(true, probabilities, groups, names, seed=5)
    assert list(first) == names
    assert first == bootstrap(true, probabilities, groups, names, seed=5)
    assert first != bootstrap(true, probabilities, groups, names, seed=6)
    assert (true == before[0]).all() and (probabilities == before[1]).all()


def test_draws_in_small_blocks_are_the_same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    true, probabilities = some_predictions()
    groups = np.arange(300).astype(str)
    names = ["accuracy", "auroc_macro"]
    whole = draws(true, probabilities, groups, names, resamples=50, seed=2)
    monkeypatch.setattr("fedlens.metrics.intervals._BLOCK", 1000)
    parts = draws(true, probabilities, groups, names, resamples=50, seed=2)
    for name in names:
        assert whole[name] == pytest.approx(parts[name])


def test_one_patient_leaves_no_interval() -> None:
    true, probabilities = some_predictions(5)
    for interval in bootstrap(true, probabilities, ["p"] * 5, ["accuracy", "auroc_macro"]).values():
        assert np.isnan(interval).all()


def test_bootstrap_names_an_unknown_statistic() -> None:
    true, probabilities = some_predictions(5)
    with pytest.raises(DataError, match="accurracy"):
        bootstrap(true, probabilities, list("abcde"), ["accurracy"])


def test_paired_difference_finds_a_real_gain_and_is_antisymmetric() -> None:
    rng = np.random.default_rng(0)
    worse = rng.random(800) < 0.7
    better = worse | (rng.random(800) < 0.3)
    groups = np.repeat(np.arange(400), 2).astype(str)
    gain = paired_difference(better, worse, groups)
    loss = paired_difference(worse, better, groups)
    assert 0 < gain.low < gain.difference < gain.high
    assert gain.p_value < 0.01
    assert (gain.images, gain.groups) == (800, 400)
    assert (loss.difference, loss.low, loss.high) == pytest.approx((-gain.difference, -gain.high, -gain.low))


def test_equal_networks_differ_by_nothing() -> None:
    right = np.random.default_rng(0).random(50) < 0.5
    same = paired_difference(right, right, np.arange(50).astype(str))
    assert (same.difference, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_pairing_covers_no_gain_at_about_the_stated_rate() -> None:
    rng = np.random.default_rng(0)
    groups = np.arange(200).astype(str)
    misses = 0
    for seed in range(200):
        first, second = rng.random(200) < 0.8, rng.random(200) < 0.8
        misses += paired_difference(first, second, groups, resamples=200, seed=seed).p_value < 0.05
    assert misses <= 24


def test_paired_difference_refuses_different_images() -> None:
    with pytest.raises(DataError, match="same images"):
        paired_difference(np.ones(3, bool), np.ones(2, bool), ["a", "b", "c"])


@pytest.mark.parametrize(
    ("hits", "images", "low", "high"),
    [(0, 10, 0.0, 0.27753), (5, 10, 0.23659, 0.76341), (10, 10, 0.72247, 1.0), (81, 263, 0.25529, 0.36620)],
)
def test_wilson_gives_known_intervals(hits: int, images: int, low: float, high: float) -> None:
    assert wilson(hits, images) == pytest.approx((low, high), abs=1e-5)


def test_wilson_of_no_images_is_undefined() -> None:
    assert np.isnan(wilson(0, 0)).all()


def test_sums_are_of_the_same_resamples_as_confusions() -> None:
    rng = np.random.default_rng(3)
    true, predicted = rng.integers(0, 2, 60), rng.integers(0, 2, 60)
    groups = [f"g{number // 3}" for number in range(60)]
    table = np.stack([true == 1, (true == 1) & (predicted == 1)], axis=1).astype(np.float64)
    sums = resample_sums(table, groups, resamples=50, seed=4)
    confusions = resample_confusions(true, predicted, groups, 2, resamples=50, seed=4)
    assert np.array_equal(sums, np.stack([confusions[:, 1].sum(1), confusions[:, 1, 1]], axis=1))
    assert resample_sums(table[:3], groups[:3], resamples=50, seed=4).shape == (0, 2)


def test_the_p_value_counts_both_sides_and_is_never_zero() -> None:
    assert two_sided(np.linspace(0.1, 1, 99)) == pytest.approx(2 / 100)
    assert two_sided(np.linspace(-1, -0.1, 99)) == pytest.approx(2 / 100)
    assert two_sided(np.zeros(99)) == two_sided(np.zeros(0)) == 1
    assert two_sided(np.r_[np.full(90, 1.0), np.full(9, -1.0)]) == pytest.approx(0.2)
