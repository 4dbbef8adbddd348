"""Figures of advice on test images, their charts and their section of the page."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tests.decision.simulated import outputs

from fedlens.decision.bundle import Basis, DecisionBundle
from fedlens.decision.modality import KnownModalities
from fedlens.decision.scores import scaled
from fedlens.decision.settings import DecisionSettings
from fedlens.decision.totals import ScoreTotals
from fedlens.decision.unlike import FeatureStatistics
from fedlens.errors import DataError
from fedlens.reports.decision import DecisionResults, decision_results, flat_figures
from fedlens.reports.decision_page import decision_view
from fedlens.reports.html import ReportInput, render_report
from fedlens.reports.predictions import Predictions

from .conftest import Page

CLASSES = ("a", "b", "c", "d")


def make_bundle(images: int = 2000) -> DecisionBundle:
    """Fitted on images whose network is overconfident by a temperature of 2."""
    log_p, labels = outputs(images, temperature=2.0, seed=1)
    statistics = FeatureStatistics(np.zeros((4, 3)), np.eye(3))
    basis = Basis(2.0, statistics, KnownModalities({"mri": 10}, {"mri": 0.0}))
    distances = np.random.default_rng(0).uniform(0.5, 1.5, images)
    scores = ScoreTotals.of(scaled(log_p, 2.0), labels, distances)
    return DecisionBundle.of(
        basis,
        scores,
        classes=CLASSES,
        weights_sha256="0" * 64,
        hospitals=2,
        settings=DecisionSettings(),
    )


def make_predictions(images: int = 2000) -> Predictions:
    log_p, labels = outputs(images, temperature=2.0, seed=2)
    names = np.array([f"image{number}" for number in range(images)])
    hospitals = np.array(["A", "B"])[np.arange(images) % 2]
    return Predictions(names, hospitals, hospitals, names, labels, np.exp(log_p).astype(np.float32), CLASSES)


@pytest.fixture(scope="module")
def results() -> DecisionResults:
    return decision_results(make_bundle(), make_predictions(), resamples=100)


def test_what_was_fitted_holds_on_test_images(results: DecisionResults) -> None:
    figures = flat_figures(results)
    assert figures["ece_before"] > 0.1 > 0.03 > figures["ece_after"]
    assert figures["coverage"] == pytest.approx(0.9, abs=0.025)
    assert figures["referred"] == pytest.approx(0.2, abs=0.03)
    assert figures["error_of_rest"] < figures["error"] and figures["error_reduction_low"] > 0
    for name in CLASSES:
        assert figures[f"{name}_sensitivity"] == pytest.approx(0.95, abs=0.04)
    assert all(np.isfinite(value) for value in figures.values())


def test_hospitals_and_classes_stand_beside(results: DecisionResults) -> None:
    assert [part.name for part in results.hospitals] == ["A", "B"]
    assert sum(part.images for part in results.hospitals) == results.pooled.images == 2000
    for part in (results.pooled, *results.hospitals):
        assert part.coverage.low < part.coverage.value < part.coverage.high
    assert [name for name, _ in results.by_class] == list(CLASSES)
    assert results.sizes.sum() == 2000
    for points in results.curves.values():
        sizes = [point.size for point in points]
        assert sizes == sorted(sizes)


def test_the_section_stands_in_the_page(results: DecisionResults, report: ReportInput) -> None:
    assert "Advice" not in Page(render_report(report)).text
    page = Page(render_report(dataclasses.replace(report, decision=results)))
    assert page.open == [] and "advice" in [attributes.get("id") for attributes in page.all("section")]
    view = decision_view(results)
    assert view.by_class[0][1] in page.text
    assert view.rows[0].coverage in page.text and view.points[0].threshold in page.text
    assert len(view.points) == 3 * len(CLASSES)


def test_other_predictions_are_refused(results: DecisionResults) -> None:
    other = dataclasses.replace(make_predictions(10), classes=("a", "b", "c", "x"))
    for predictions in (other, make_predictions(10).where(np.zeros(10, np.bool_))):
        with pytest.raises(DataError, match="cannot be held against"):
            decision_results(results.bundle, predictions)
