"""The stray detector: shares of heat, verdicts, and who is told."""

from __future__ import annotations

import numpy as np
import pytest

from fedlens.explain.straying import (
    LEAST_SHARE,
    TIMES_CHANCE,
    cell_of,
    stray_values,
    straying_hospitals,
    strays_by_itself,
)
from fedlens.imaging.field import FieldMasks
from fedlens.metrics.explanation import COLUMNS, MEASURES, STRAY_REGIONS
from fedlens.metrics.explanation_totals import QualityTotals, figures
from fedlens.models.registry import build_network
from fedlens.study import ModelSettings

_SIZE = 64


def _field(**places: tuple[slice, slice]) -> FieldMasks:
    """Everything is body but a margin of 8 pixels; the rest as named."""
    names = ("field", "text", "border", "corners", "hair")
    masks = {name: np.zeros((_SIZE, _SIZE), np.bool_) for name in names}
    masks["field"][8:-8, 8:-8] = True
    for name, place in places.items():
        masks[name][place] = True
    return FieldMasks(**masks)


def _map(row: int, column: int, side: int = 8) -> np.ndarray:
    heat = np.zeros((1, _SIZE, _SIZE), np.float32)
    heat[0, row : row + side, column : column + side] = 1
    return heat


LETTER = {"text": (slice(0, 8), slice(56, 64))}


def test_heat_on_a_letter_strays_and_heat_in_the_body_does_not() -> None:
    on_letter = stray_values(_map(0, 56), [_field(**LETTER)], cell=4)
    assert on_letter["energy-text"] == 1 and on_letter["strays-text"] == 1 and on_letter["strays"] == 1
    assert on_letter["energy-outside"] > 0.5 and on_letter["strays-outside"] == 1
    inside = stray_values(_map(30, 30), [_field(**LETTER)], cell=4)
    assert not any(inside[f"strays-{region}"] for region in STRAY_REGIONS) and inside["strays"] == 0
    assert inside["energy-text"] == 0 and 0.01 < inside["area-text"] < 0.05


@pytest.mark.parametrize(
    ("region", "name"), [("text", "text"), ("border", "border"), ("corners", "corners"), ("hair", "hair")]
)
def test_every_region_is_told_apart(region: str, name: str) -> None:
    values = stray_values(_map(30, 30), [_field(**{name: (slice(30, 38), slice(30, 38))})], cell=2)
    strayed = [region for region in STRAY_REGIONS if values[f"strays-{region}"]]
    assert strayed == [region]


def test_coarse_maps_are_given_the_benefit_of_the_doubt() -> None:
    at_the_rim = _map(2, 30, side=6)
    assert stray_values(at_the_rim, [_field()], cell=2)["strays-outside"] == 1
    assert stray_values(at_the_rim, [_field()], cell=16)["strays-outside"] == 0
    beside_the_letter = _map(10, 44, side=8)
    assert stray_values(beside_the_letter, [_field(**LETTER)], cell=2)["energy-text"] == 0
    assert stray_values(beside_the_letter, [_field(**LETTER)], cell=16)["energy-text"] > 0


def test_a_map_that_is_hot_everywhere_or_nowhere_does_not_stray() -> None:
    field = _field(**LETTER)
    for heat in (np.ones((1, _SIZE, _SIZE), np.float32), np.zeros((1, _SIZE, _SIZE), np.float32)):
        values = stray_values(heat, [field], cell=4)
        assert values["strays"] == 0
        assert values["energy-text"] == pytest.approx(values["area-text"] if heat.any() else 0)


def test_values_fill_the_family_of_columns() -> None:
    values = stray_values(_map(30, 30), [_field()], cell=4)
    straying = {measure.name for measure in MEASURES if measure.family == "straying"}
    assert straying <= values.keys() <= set(COLUMNS)
    assert TIMES_CHANCE.keys() == set(STRAY_REGIONS) and 0 < LEAST_SHARE < 0.1
    totals = QualityTotals.of(values, np.array([1]), 2)
    assert figures(totals, ("a", "b"))["energy-outside"]["chance"] > 0.1


def test_a_cell_is_the_networks_own() -> None:
    network = build_network(ModelSettings(), classes=2, channels=1, image_size=64, seed=0)
    assert cell_of(network) == 16


def _totals(*strays: tuple[int, int]) -> QualityTotals:
    """One class after the other: so many of so many maps stray onto text."""
    values, labels = [], []
    for label, (strayed, images) in enumerate(strays):
        values += [1.0] * strayed + [0.0] * (images - strayed)
        labels += [label] * images
    return QualityTotals.of({"strays-text": np.array(values)}, np.array(labels), len(strays))


def test_the_hospital_and_class_that_strays_is_told_and_no_other() -> None:
    totals = {
        "North": _totals((1, 30), (2, 30)),
        "East": _totals((1, 30), (15, 30)),
        "South": _totals((0, 30), (0, 30)),
        "West": _totals((2, 30), (1, 30)),
    }
    (found,) = straying_hospitals(totals)
    assert (found.hospital, found.label, found.region) == ("East", 1, "text")
    assert (found.strayed, found.images) == (15, 30)
    assert found.elsewhere == pytest.approx(3 / 90) and found.chance < 1e-6
    everyone = sum(totals.values(), start=QualityTotals.zero(2))
    assert strays_by_itself("East", totals["East"], everyone - totals["East"]) == [found]


def test_what_strays_everywhere_or_hardly_is_not_one_hospitals_doing() -> None:
    alike = {name: _totals((10, 30), (10, 30)) for name in ("North", "East", "South")}
    assert straying_hospitals(alike) == []
    few = {"North": _totals((0, 1000), (0, 1000)), "East": _totals((0, 100), (8, 100))}
    assert straying_hospitals(few) == []
    small = {"North": _totals((0, 100), (0, 100)), "East": _totals((0, 4), (4, 4))}
    assert straying_hospitals(small) == []


def test_chance_alone_rarely_tells() -> None:
    rng = np.random.default_rng(0)
    flagged = 0
    for _ in range(300):
        totals = {
            name: _totals(*((int(rng.binomial(25, 0.2)), 25) for _ in range(2)))
            for name in ("North", "East", "South", "West")
        }
        flagged += bool(straying_hospitals(totals))
    assert flagged <= 6
