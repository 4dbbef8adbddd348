"""The stray detector: shares of heat, verdicts, and who is told."""

from __future__ import annotations

import numpy as np
import pytest

from fedlens.explain.straying import (
    LEAST_SHARE,
    REGIONS_IN_WORDS,
    TIMES_CHANCE,
    StrayReason,
    cell_of,
    reasons_in_words,
    stray_reasons,
    stray_values,
    straying_classes,
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


def test_each_image_is_told_why() -> None:
    maps = np.concatenate([_map(0, 56), _map(30, 30)])
    values = stray_values(maps, [_field(**LETTER), _field(**LETTER)], cell=4)
    reasons = stray_reasons(values, 0)
    assert [reason.region for reason in reasons] == ["text", "outside"]
    assert reasons[0].heat == 1 and reasons[0].image == pytest.approx(values["area-text"][0])
    assert stray_reasons(values, 1) == [] and reasons_in_words([]) == ""
    assert REGIONS_IN_WORDS.keys() == set(STRAY_REGIONS)
    words = reasons_in_words([StrayReason("text", 0.41, 0.03), StrayReason("hair", 0.2, 0.004)])
    assert words == (
        "41 % of the heat lies on letters, markers or a ruler (3 % of the image); "
        "20 % of the heat lies on hairs (less than 1 % of the image)"
    )


def _of_classes(region: str, *rows: tuple[int, int, float]) -> QualityTotals:
    """One class after the other: so many of so many maps stray, and the region's share of the image."""
    strays, areas, labels = [], [], []
    for label, (strayed, images, area) in enumerate(rows):
        strays += [1.0] * strayed + [0.0] * (images - strayed)
        areas += [area] * images
        labels += [label] * images
    values = {f"strays-{region}": np.array(strays), f"area-{region}": np.array(areas)}
    return QualityTotals.of(values, np.array(labels), len(rows))


def test_a_class_that_strays_more_than_all_others_is_flagged() -> None:
    (found,) = straying_classes(_of_classes("outside", (60, 150, 0.3), (12, 150, 0.3), (3, 150, 0.3)))
    assert (found.label, found.region, found.nearest) == (0, "outside", 1)
    assert (found.strayed, found.images) == (60, 150)
    assert found.elsewhere == pytest.approx(0.08) and found.chance < 1e-8
    assert found.sentence(("notumor", "glioma", "pituitary")) == (
        "60 of 150 maps of notumor have too much of their heat outside the body (8 % of glioma's, the most "
        "of the other classes): the network may tell it by where its images come from"
    )


def test_a_class_that_strays_a_little_more_or_in_few_images_is_not_flagged() -> None:
    for rows in (
        ((300, 1000, 0.3), (200, 1000, 0.3)),
        ((90, 1000, 0.3), (0, 1000, 0.3)),
        ((3, 6, 0.3), (0, 6, 0.3)),
        ((50, 100, 0.3), (50, 100, 0.3)),
        ((4, 4, 0.3), (0, 100, 0.3)),
        ((90, 100, 0.3), (0, 0, 0.0)),
    ):
        assert straying_classes(_of_classes("outside", *rows)) == []


def test_classes_are_compared_with_those_that_have_the_region() -> None:
    # Two chest classes stray alike; skin has no ground to stray to.
    assert straying_classes(_of_classes("outside", (50, 100, 0.3), (45, 100, 0.3), (0, 500, 0.0))) == []
    (found,) = straying_classes(_of_classes("text", (30, 100, 0.02), (0, 100, 0.001), (0, 100, 0.0)))
    assert (found.label, found.region) == (0, "text")


def test_the_flag_of_a_class_survives_the_sum_over_hospitals() -> None:
    parts = [_of_classes("border", (20, 50, 0.1), (1, 50, 0.1)) for _ in range(4)]
    whole = sum(parts, start=QualityTotals.zero(2))
    (found,) = straying_classes(whole)
    assert (found.label, found.region, found.strayed, found.images) == (0, "border", 80, 200)
    assert straying_classes(QualityTotals.zero(2)) == []


def test_chance_alone_rarely_flags_a_class() -> None:
    rng = np.random.default_rng(1)
    flagged = 0
    for _ in range(300):
        rows = [(int(rng.binomial(40, 0.15)), 40, 0.3) for _ in range(3)]
        flagged += bool(straying_classes(_of_classes("outside", *rows)))
    assert flagged <= 4


def test_a_hospital_is_told_in_words() -> None:
    totals = {name: _totals((1, 30), (1, 30)) for name in ("North", "South", "West")}
    totals["East"] = _totals((1, 30), (15, 30))
    (found,) = straying_hospitals(totals)
    assert found.sentence(("healthy", "ill")) == (
        "East: 15 of 30 maps of ill have too much of their heat on letters, markers or a ruler "
        "(3 % at the other hospitals)"
    )
