"""Explanation quality as the report's page shows it: cells of text, ready for the template."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fedlens.arm_path import FEDERATED
from fedlens.explained_arms import EXPLAINABLE
from fedlens.reports.explanation_comparison import (
    ExplanationComparison,
    ExplanationGain,
    ExplanationSummary,
)
from fedlens.reports.explanation_figures import ACCURACY, FIGURES, TIMES_CHANCE, Figure
from fedlens.reports.explanation_text import (
    ARROWS,
    baselines,
    difference_text,
    explanation_notes,
    interval_text,
    mean_text,
    p_words,
    range_text,
    shown_figures,
    value_text,
)
from fedlens.reports.paper import ARM_LABELS

_PLACE_FIGURES = (TIMES_CHANCE, "pointing", "strays")
_VERDICT_STYLE = {"better": "right", "worse": "wrong", "no effect seen": "note"}


@dataclass(frozen=True)
class Cell:
    """A figure, its interval, p-value, and verdict with its colour's class; empty where there is none."""

    value: str
    below: str = ""
    test: str = ""
    tag: str = ""
    style: str = ""


@dataclass(frozen=True)
class Heading:
    """A column's or row's figure: its name, which way is better, and what a tooltip says of it."""

    name: str
    arrow: str
    about: str


@dataclass(frozen=True)
class Place:
    """A hospital's or a data set's row.

    Attributes:
        name: For people.
        images: Test images.
        outlined: Those with an outline.
        training: Outlines among its training images, in words; empty for a data set.
        cells: For each arm, each figure of ``place_figures``.
    """

    name: str
    images: int
    outlined: int
    training: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class ExplanationView:
    """All tables of the section on explanation quality.

    Attributes:
        headings: Columns of the table of arms.
        arms: Label and cells of each arm.
        baselines: Name and cells of maps that know nothing.
        measures: Name, what it is, direction, range and source of each measure.
        changed: Labels of the arms that are held against the federated one.
        changes: Figure, and a cell for each of these arms.
        place_arms: Labels of the arms in the table of places.
        place_figures: Their columns.
        places: Hospitals, then data sets.
        notes: What a reader has to know.
    """

    headings: tuple[Heading, ...]
    arms: tuple[tuple[str, tuple[Cell, ...]], ...]
    baselines: tuple[tuple[str, tuple[Cell, ...]], ...]
    measures: tuple[tuple[str, str, str, str, str], ...]
    changed: tuple[str, ...]
    changes: tuple[tuple[Heading, tuple[Cell, ...]], ...]
    place_arms: tuple[str, ...]
    place_figures: tuple[Heading, ...]
    places: tuple[Place, ...]
    notes: tuple[str, ...]


def explanation_view(
    comparison: ExplanationComparison, outlined: Mapping[str, tuple[int, int]]
) -> ExplanationView:
    """The section's tables.

    Args:
        comparison: Of all arms.
        outlined: By hospital its training images with an outline, and all of them.
    """
    shown = shown_figures(comparison)
    changed = comparison.explained_arms
    place_arms = (
        tuple(arm for arm in comparison.arms if arm in (FEDERATED, EXPLAINABLE)) or comparison.arms[:1]
    )
    place_figures = tuple(figure for figure in shown if figure.name in _PLACE_FIGURES)
    changes = []
    for figure in FIGURES:
        gains = tuple(comparison.gain(arm, "pooled", figure.name) for arm in changed)
        if any(gains):
            changes.append((_heading(figure), tuple(_change(figure, gain) for gain in gains)))
    return ExplanationView(
        headings=tuple(map(_heading, shown)),
        arms=tuple(
            (
                ARM_LABELS.get(arm, arm),
                tuple(_cell(figure, comparison.summary(arm, "pooled", figure.name)) for figure in shown),
            )
            for arm in comparison.arms
        ),
        baselines=tuple(
            (name, tuple(Cell(value_text(figure, values.get(figure.name, math.nan))) for figure in shown))
            for name, values in baselines(comparison)
        ),
        measures=tuple(map(_measure, shown)),
        changed=tuple(ARM_LABELS.get(arm, arm) for arm in changed),
        changes=tuple(changes),
        place_arms=tuple(ARM_LABELS.get(arm, arm) for arm in place_arms),
        place_figures=tuple(map(_heading, place_figures)),
        places=_places(comparison, outlined, place_arms, place_figures),
        notes=explanation_notes(comparison),
    )


def _places(
    comparison: ExplanationComparison,
    outlined: Mapping[str, tuple[int, int]],
    arms: tuple[str, ...],
    figures: tuple[Figure, ...],
) -> tuple[Place, ...]:
    places = []
    for scope in (*comparison.scopes("hospital"), *comparison.scopes("source")):
        kind, _, name = scope.partition(":")
        found = {
            (arm, figure.name): comparison.summary(arm, scope, figure.name)
            for arm in arms
            for figure in FIGURES
        }
        with_outline, everything = outlined.get(name, (0, 0)) if kind == "hospital" else (0, 0)
        whole, located = found[arms[0], ACCURACY], found[arms[0], "energy"]
        places.append(
            Place(
                name=f"Hospital {name}" if kind == "hospital" else name,
                images=whole.images if whole else 0,
                outlined=located.images if located else 0,
                training=f"{with_outline:,} of {everything:,}" if everything else "",
                cells=tuple(_cell(figure, found[arm, figure.name]) for arm in arms for figure in figures),
            )
        )
    return tuple(places)


def _heading(figure: Figure) -> Heading:
    source = f" {figure.source}." if figure.source else ""
    return Heading(figure.short, ARROWS[figure.better], f"{_sentence(figure.title)}.{source}")


def _measure(figure: Figure) -> tuple[str, str, str, str, str]:
    high = "∞" if math.isinf(figure.high) else f"{figure.high:g}"
    return (
        figure.short,
        _sentence(figure.title),
        f"{figure.better} is better",
        f"{figure.low:g} to {high}",
        figure.source,
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _cell(figure: Figure, entry: ExplanationSummary | None) -> Cell:
    if entry is None:
        return Cell("–")
    return Cell(mean_text(figure, entry), interval_text(figure, entry.low, entry.high))


def _change(figure: Figure, gain: ExplanationGain | None) -> Cell:
    if gain is None:
        return Cell("–")
    return Cell(
        difference_text(figure, gain.difference),
        range_text(figure, gain.low, gain.high),
        f"p {p_words(gain.p_value)}",
        gain.verdict,
        _VERDICT_STYLE[gain.verdict],
    )
