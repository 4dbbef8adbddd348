"""Totals of explanation measures: what travels, and that it adds up."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlens.errors import DataError
from fedlens.metrics.explanation import COLUMNS, MEASURES
from fedlens.metrics.explanation_totals import MOST_VALUE, UNITS, QualityTotals, figures
from fedlens.protocol.totals import explain_layout

CLASSES = ("a", "b", "c")


def test_descriptions_are_whole() -> None:
    assert len({measure.name for measure in MEASURES}) == len(MEASURES)
    assert len(set(COLUMNS)) == len(COLUMNS)
    for measure in MEASURES:
        assert measure.low < measure.high <= MOST_VALUE and measure.source and measure.unit and measure.title
        assert set(measure.columns()) <= set(COLUMNS)
        if measure.family == "localisation":
            assert measure.chance == "area" and set(measure.columns(measure.centre)) <= set(COLUMNS)


@st.composite
def _images(draw: st.DrawFn) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Values of a few columns, labels, and each image's hospital of four."""
    count = draw(st.integers(0, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    columns = draw(st.lists(st.sampled_from(COLUMNS), max_size=6, unique=True))
    values = {}
    for name in columns:
        column = rng.uniform(-1, 1, count) * draw(st.sampled_from([1.0, 1e-7, 900.0, 5000.0]))
        column[rng.random(count) < 0.3] = np.nan
        values[name] = column
    return values, rng.integers(0, 3, count), rng.integers(0, 4, count)


@given(_images())
def test_four_hospitals_sums_are_the_pooled_ones(
    images: tuple[dict[str, np.ndarray], np.ndarray, np.ndarray],
) -> None:
    values, labels, hospitals = images
    pooled = QualityTotals.of(values, labels, 3)
    layout = explain_layout(3)
    vectors = []
    for hospital in range(4):
        mine = hospitals == hospital
        own = QualityTotals.of({name: column[mine] for name, column in values.items()}, labels[mine], 3)
        vectors.append(layout.flatten(own.numbers()))
    federation = QualityTotals.from_numbers(layout.restore(np.sum(vectors, axis=0)))
    assert np.array_equal(federation.sums, pooled.sums) and np.array_equal(federation.counts, pooled.counts)
    assert figures(federation, CLASSES) == figures(pooled, CLASSES)
    for name, column in values.items():
        known = np.clip(column[~np.isnan(column)], -MOST_VALUE, MOST_VALUE)
        mean = pooled.mean(name)
        if len(known):
            assert mean == pytest.approx(known.mean(), abs=1 / UNITS)
        else:
            assert mean is None


@given(_images())
def test_a_hospital_can_be_taken_out_again(
    images: tuple[dict[str, np.ndarray], np.ndarray, np.ndarray],
) -> None:
    values, labels, hospitals = images
    mine = hospitals == 0
    own = QualityTotals.of({name: column[mine] for name, column in values.items()}, labels[mine], 3)
    rest = QualityTotals.of({name: column[~mine] for name, column in values.items()}, labels[~mine], 3)
    others = QualityTotals.of(values, labels, 3) - own
    assert np.array_equal(others.sums, rest.sums) and np.array_equal(others.counts, rest.counts)


def test_the_layout_holds_the_largest_study() -> None:
    most = QualityTotals.of({"cost": np.full(3, 1e9)}, np.array([0, 0, 0]), 1)
    assert most.mean("cost") == MOST_VALUE
    assert int(most.sums.max()) // 3 * 2**24 <= 2**54
    assert explain_layout(4).size == 2 * 4 * len(COLUMNS)


def test_figures_are_ready_for_json_and_leave_out_what_was_not_measured() -> None:
    totals = QualityTotals.of(
        {"energy": np.array([0.5, np.nan]), "area": np.array([0.1, np.nan])}, np.array([1, 0]), 3
    )
    assert json.loads(json.dumps(figures(totals, CLASSES))) == {
        "energy": {
            "value": 0.5,
            "images": 1,
            "centre": None,
            "chance": pytest.approx(0.1, abs=1e-6),
            "times_chance": pytest.approx(5, abs=1e-4),
            "better": "higher",
            "by_class": {"b": 0.5},
        }
    }
    assert figures(QualityTotals.zero(3), CLASSES) == {}


def test_what_cannot_be_added_up_is_refused() -> None:
    labels = np.array([0, 1])
    for name, column in (
        ("nonsense", np.zeros(2)),
        ("energy", np.zeros(3)),
        ("energy", np.array([0.0, np.inf])),
    ):
        with pytest.raises(DataError, match=name):
            QualityTotals.of({name: column}, labels, 3)
