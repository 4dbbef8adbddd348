"""Which figures of explanation quality are compared, and how they follow from columns of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fedlens.metrics.explanation import AREA, MEASURES, Measure

Floats = npt.NDArray[np.float64]

ACCURACY = "accuracy"
"""Column, and figure, of whether the image was decided rightly."""

TIMES_CHANCE = "times-chance"

_MEASURES: Mapping[str, Measure] = {measure.name: measure for measure in MEASURES}


@dataclass(frozen=True)
class Figure:
    """One figure of the comparison.

    Attributes:
        name: As in the tables' ``figure`` column.
        short: Heading of a narrow column.
        title: For people.
        better: Whether higher or lower values are better.
        unit: ``share`` is shown in percent, ``times`` as a multiple.
        low: Least possible value.
        high: Greatest possible value.
        source: Who proposed it.
        needs_outline: Only images with an expert's outline count.
    """

    name: str
    short: str
    title: str
    better: Literal["higher", "lower"]
    unit: Literal["share", "times"]
    low: float
    high: float
    source: str
    needs_outline: bool


def _measured(name: str, short: str) -> Figure:
    measure = _MEASURES[name]
    located = measure.family == "localisation"
    return Figure(
        name,
        short,
        measure.title,
        measure.better,
        "share",
        measure.low,
        measure.high,
        measure.source,
        located,
    )


_ENERGY = _measured("energy", "Energy inside")

EXPLANATION_FIGURES: tuple[Figure, ...] = (
    _measured("pointing", "Pointing"),
    _ENERGY,
    Figure(
        TIMES_CHANCE,
        "Times chance",
        "energy inside the outline, in multiples of the outline's share of the image",
        "higher",
        "times",
        0,
        float("inf"),
        _ENERGY.source,
        True,
    ),
    _measured("rank", "Rank"),
    _measured("iou", "Overlap"),
    _measured("equivariance-flip", "Mirrored alike"),
    _measured("energy-outside", "Energy outside"),
    _measured("strays", "Stray maps"),
    _measured("empty", "Empty maps"),
)

FIGURES: tuple[Figure, ...] = (
    Figure(ACCURACY, "Accuracy", "accuracy", "higher", "share", 0, 1, "", False),
    *EXPLANATION_FIGURES,
)
"""All that arms are compared by, in the order of tables."""


def figure_values(means: Mapping[str, Floats]) -> dict[str, Floats]:
    """Every figure that can be had from the means of columns, each (B,); NaN where undefined.

    The overlap's threshold is the best on the mean of all images, in each resample anew.
    """
    found = {}
    for figure in FIGURES:
        if figure.name == ACCURACY:
            value = means.get(ACCURACY)
        elif figure.name == TIMES_CHANCE:
            value = _ratio(means.get("energy"), means.get(AREA))
        else:
            value = _best(means, _MEASURES[figure.name].columns())
        if value is not None:
            found[figure.name] = value
    return found


def baseline_values(means: Mapping[str, Floats]) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """The same figures of a map that is random and blind, and of one that is hot in the middle."""
    chance, centre = {}, {}
    for figure in EXPLANATION_FIGURES:
        measure = _MEASURES.get(figure.name)
        if measure is None:
            blind: Floats | None = np.ones(1)
            middle = _ratio(means.get("energy-centre"), means.get(AREA))
        else:
            blind = means.get(measure.chance)
            middle = _best(means, measure.columns(measure.centre)) if measure.centre else None
        if blind is not None:
            chance[figure.name] = blind
        if middle is not None:
            centre[figure.name] = middle
    return chance, centre


def _best(means: Mapping[str, Floats], columns: tuple[str, ...]) -> Floats | None:
    if any(column not in means for column in columns):
        return None
    best: Floats = np.max([means[column] for column in columns], axis=0)
    return best


def _ratio(over: Floats | None, under: Floats | None) -> Floats | None:
    if over is None or under is None:
        return None
    ratio: Floats = over / np.where(under > 0, under, np.nan)
    return ratio
