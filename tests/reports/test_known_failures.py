"""Sentences on failures follow from the figures, and from nothing else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fedlens.reports.comparison import ArmPredictions, Comparison, compare
from fedlens.reports.explanation_comparison import ExplanationComparison
from fedlens.reports.known_failures import known_failures, stray_shares
from fedlens.reports.predictions import Predictions
from fedlens.reports.shares import Share


def _predictions() -> Predictions:
    """Three classes and two hospitals: mel is taken for nv in 15 of 20 images, all of them at B and sure."""
    true = np.repeat([0, 1, 2], [40, 20, 40]).astype(np.int64)
    decided = true.copy()
    decided[40:55] = 2
    probabilities = np.full((100, 3), 0.05, np.float32)
    probabilities[np.arange(100), decided] = 0.9
    return Predictions(
        image_ids=np.array([f"{index:03d}" for index in range(100)]),
        hospitals=np.where((true == 1), "B", "A"),
        sources=np.full(100, "skin"),
        groups=np.array([f"p{index}" for index in range(100)]),
        true=true,
        probabilities=probabilities,
        classes=("bcc", "mel", "nv"),
    )


@pytest.fixture(scope="module", name="skin")
def _skin() -> Comparison:
    return compare([ArmPredictions(0, "federated", _predictions())], resamples=200)


def test_the_worst_class_confusion_and_hospital_are_named(skin: Comparison) -> None:
    found = known_failures(skin, "federated", predictions=[_predictions()])

    assert len(found) == 4
    assert found[0].startswith("Class mel is missed in 75.0 % of its 20 test images: sensitivity 25.0 %")
    assert "the mean over classes is 75.0 %" in found[0]
    assert found[1] == "mel is taken for nv in 15 of 20 test images (75.0 %)."
    assert found[2].startswith("A high probability is no proof: 15 of 15 wrong decisions")
    assert found[3].startswith("On the 20 test images of hospital B accuracy is 25.0 %")
    assert found[3].endswith("against 85.0 % on all.")


def test_nothing_is_made_up_where_all_is_right() -> None:
    predictions = _predictions()
    right = np.eye(3, dtype=np.float32)[predictions.true]
    perfect = dataclasses.replace(predictions, probabilities=right)
    comparison = compare([ArmPredictions(0, "federated", perfect)], resamples=200)

    assert known_failures(comparison, "federated", predictions=[perfect]) == ()


def test_a_lower_hospital_within_chance_is_called_so(comparison: Comparison) -> None:
    hospitals = [text for text in known_failures(comparison, "federated") if "hospital" in text]
    pooled = comparison.summary("federated", "pooled", "accuracy").mean

    assert len(hospitals) >= 1
    for text in hospitals:
        name = text.split("hospital ")[1].split()[0]
        entry = comparison.summary("federated", f"hospital:{name}", "accuracy")
        assert entry.mean < pooled
        assert ("cannot tell" in text) == (entry.high >= pooled)


def test_few_images_and_hospitals_without_a_class_are_named(skin: Comparison) -> None:
    shares = (
        Share("A", "skin", "bcc", "train", 500),
        Share("A", "skin", "mel", "train", 40),
        Share("B", "skin", "mel", "train", 30),
        Share("B", "skin", "bcc", "test", 9),
    )
    found = known_failures(skin, "federated", shares=shares)

    assert "Few training images, below 100, of: mel (70)." in found
    assert "Hospital B had no training image of: bcc." in found


def test_maps_beside_the_finding_are_named(
    comparison: Comparison, explanations: ExplanationComparison
) -> None:
    found = known_failures(
        comparison,
        "federated",
        explanations=explanations,
        stray_by_class={"glioma": 0.1, "mel": 0.4},
    )
    strays = explanations.summary("federated", "pooled", "strays")
    pointing = explanations.summary("federated", "pooled", "pointing")
    assert strays is not None and pointing is not None

    assert f"{100 * strays.mean:.1f} % of the maps stray" in found[-2]
    assert "most often for mel, 40.0 %" in found[-2]
    assert f"In {100 - 100 * pointing.mean:.1f} % of the {pointing.images:,} test images" in found[-1]


def test_stray_shares_leave_out_what_is_undefined() -> None:
    true = np.array([0, 0, 1, 1, 2])
    strays = np.array([1.0, 0.0, 1.0, np.nan, np.nan])

    assert stray_shares(true, strays, ("a", "b", "c")) == {"a": 0.5, "b": 1.0}
