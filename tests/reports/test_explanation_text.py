from __future__ import annotations

import math

from fedlens.reports.explanation_comparison import ExplanationComparison, compare_explanations
from fedlens.reports.explanation_figures import FIGURES
from fedlens.reports.explanation_text import (
    difference_text,
    interval_text,
    markdown,
    p_words,
    range_text,
    value_text,
)

from .conftest import fake_explanations

BY_NAME = {figure.name: figure for figure in FIGURES}


def test_shares_are_percent_and_multiples_are_multiples() -> None:
    energy, times = BY_NAME["energy"], BY_NAME["times-chance"]
    assert (value_text(energy, 0.4129), value_text(times, 2.314)) == ("41.3", "2.31×")
    assert (difference_text(energy, -0.021), difference_text(times, -0.3)) == ("−2.1", "−0.30×")
    assert interval_text(times, 2.0, 2.5) == "2.00–2.50×"
    assert difference_text(times, 0.001) == "0.00×"
    assert range_text(times, -0.3, 0.41) == "−0.30 to +0.41×"
    assert (p_words(0.001), p_words(0.0471), p_words(0.12)) == ("< 0.01", "= 0.047", "= 0.12")
    assert interval_text(energy, math.nan, math.nan) == ""
    assert (value_text(times, math.nan), difference_text(times, math.nan)) == ("–", "–")


def test_the_table_has_every_arm_the_baselines_and_the_verdicts(explanations: ExplanationComparison) -> None:
    text = markdown(explanations)
    for row in ("Each hospital alone (mean)", "Federated", "Explainable federated", "Field loss alone"):
        assert f"| **{row}** |" in text
    assert "| *A random map* |" in text and "| *A map hot in the middle* |" in text
    assert "Stray maps ↓" in text and "Energy inside ↑" in text
    assert "**better**" in text and "**no effect seen**" in text
    for block in text.split("\n\n"):
        assert len({line.count(" | ") for line in block.splitlines() if line.startswith("| ")}) <= 1


def test_a_single_run_is_held_against_nothing() -> None:
    found = compare_explanations([fake_explanations("federated")], resamples=100)
    assert found is not None
    assert "Against federated" not in markdown(found)
