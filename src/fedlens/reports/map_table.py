"""Every measure of a federation's maps as a row of text, chance and centre beside it."""

from __future__ import annotations

from dataclasses import dataclass

from fedlens.metrics.explanation import MEASURES, Measure
from fedlens.reports.maps import DASH, Figures, times_chance

_SHARES = ("share", "share of maps", "probability", "cosine")


@dataclass(frozen=True)
class MapRow:
    """One measure of a federation's maps, as text for a table.

    Attributes:
        title: Of the measure.
        better: ``higher`` or ``lower``.
        images: How many it was taken on.
        value: In percent, or in the unit that the title's note gives.
        chance: What a random map gets; a dash where that is unknown.
        times: The value in multiples of that.
        centre: What a map gets that is hot in the middle, whatever the image shows.
        unit: Of a value that is not in percent; empty otherwise.
    """

    title: str
    better: str
    images: str
    value: str
    chance: str
    times: str
    centre: str
    unit: str


def map_rows(figures: Figures) -> tuple[MapRow, ...]:
    """Every measure taken, in the order in which they are described."""
    return tuple(
        MapRow(
            title=measure.title,
            better=measure.better,
            images=f"{figures[measure.name]['images']:,}",
            value=_text(measure, figures[measure.name]["value"]),
            chance=_text(measure, figures[measure.name].get("chance")),
            times=times_chance(figures, measure.name),
            centre=_text(measure, figures[measure.name].get("centre")),
            unit="" if measure.unit in _SHARES else measure.unit,
        )
        for measure in MEASURES
        if measure.name in figures
    )


def _text(measure: Measure, value: float | None) -> str:
    if value is None:
        return DASH
    return f"{100 * value:.1f}" if measure.unit in _SHARES else f"{value:.3g}"
