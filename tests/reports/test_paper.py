from __future__ import annotations

import pytest

from fedlens.reports.comparison import ArmPredictions, Comparison, compare
from fedlens.reports.paper import (
    IDENTICAL_NOTE,
    MEASURED,
    PAPER_RESULTS,
    REPORTED,
    REPORTED_NOTE,
    footnotes,
    markdown,
    p_text,
    percent,
    points,
    results_table,
)

from .conftest import fake_predictions


def test_the_papers_figures_are_quoted_exactly() -> None:
    quoted = {
        arm: "/".join(percent(value) for value in values.values()) for arm, values in PAPER_RESULTS.items()
    }
    assert quoted == {
        "central": "93.4/92.8/92.1/92.4",
        "federated": "94.6/94.1/93.8/93.9",
        "explainable": "96.1/95.7/95.3/95.5",
    }


def test_every_row_says_whose_figures_they_are(comparison: Comparison) -> None:
    lines = [line for line in markdown(comparison).splitlines() if line.startswith("|")]
    body = [line for line in lines if MEASURED in line or REPORTED in line]
    assert sum(MEASURED in line for line in body) == 4
    assert sum(REPORTED in line for line in body) == 3
    assert not any(MEASURED in line and REPORTED in line for line in body)
    accuracy = percent(comparison.summary("central", "pooled", "accuracy").mean)
    (central,) = [line for line in body if "**Central**" in line]
    assert f"| {accuracy} (" in central


def test_markdown_tables_are_rectangular_whatever_the_names(comparison: Comparison) -> None:
    for block in markdown(comparison).split("\n\n"):
        widths = {line.count(" | ") for line in block.splitlines() if line.startswith("| ")}
        assert len(widths) <= 1


def test_footnotes_fit_what_was_run(comparison: Comparison) -> None:
    assert {REPORTED_NOTE, IDENTICAL_NOTE} <= set(footnotes(comparison))
    alone = compare([ArmPredictions(0, "local-A", fake_predictions("local-A"))], resamples=100)
    assert not {REPORTED_NOTE, IDENTICAL_NOTE} & set(footnotes(alone))
    assert [row.paper for row in results_table(alone)] == [None]


@pytest.mark.parametrize(
    ("value", "text"), [(0.0321, "+3.2"), (-0.01, "−1.0"), (-0.0001, "0.0"), (float("nan"), "–")]
)
def test_points_are_signed(value: float, text: str) -> None:
    assert points(value) == text


def test_small_p_values_are_not_shown_as_zero() -> None:
    assert (p_text(0.002), p_text(0.049), p_text(1.0)) == ("< 0.01", "0.05", "1.00")
    assert (percent(0.12345), percent(float("nan"))) == ("12.3", "–")
