"""How explanations on validation images changed over the rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fedlens.reports.figures import Draw, Theme, curve_label, line
from fedlens.reports.paper import ARM_LABELS

_WIDTH = 9.2
_NAN = float("nan")

PANELS: Mapping[str, str] = {
    "energy": "Heat inside outlines, times chance",
    "strays": "Stray maps",
    "equivariance-flip": "Mirrored alike",
}
"""Measures that are drawn, and their titles; energy in multiples of chance."""


@dataclass(frozen=True)
class ExplanationCurve:
    """What an arm's maps came to over its rounds.

    Attributes:
        arm: As in the comparison.
        seed: Training seed.
        passes: (n,) passes over the training images before each measurement.
        values: (n,) by measure out of :data:`PANELS`; NaN where it was not defined.
    """

    arm: str
    seed: int
    passes: tuple[float, ...]
    values: Mapping[str, tuple[float, ...]]


def explanation_curve(
    arm: str, seed: int, events: Sequence[Mapping[str, Any]], *, passes: float
) -> ExplanationCurve | None:
    """A curve from the events of ``history.jsonl``; None where fewer than two rounds were measured.

    Args:
        arm: Name of the arm.
        seed: Training seed.
        events: As ``fedlens.coordinator.history.read_history`` returns them.
        passes: Passes of the whole training.
    """
    planned = next((event["rounds"] for event in events if event.get("event") == "start"), 1)
    measured = [event for event in events if event.get("event") == "round" and _figures(event)]
    if len(measured) < 2:
        return None
    return ExplanationCurve(
        arm,
        seed,
        tuple(event["round"] * passes / planned for event in measured),
        {name: tuple(_value(_figures(event).get(name), name) for event in measured) for name in PANELS},
    )


def explanation_curves(curves: Sequence[ExplanationCurve]) -> Draw:
    """One panel for each measure that some curve has, a line for each arm and seed."""
    curves = sorted(
        curves, key=lambda curve: list(ARM_LABELS).index(curve.arm) if curve.arm in ARM_LABELS else 99
    )
    shown = [
        name for name in PANELS if any(value == value for curve in curves for value in curve.values[name])
    ]

    def draw(theme: Theme) -> Figure:
        figure = Figure(figsize=(_WIDTH, 3.1), layout="constrained")
        panels = figure.subplots(1, max(len(shown), 1), squeeze=False)[0]
        for axes, name in zip(panels, shown, strict=False):
            labelled: set[str] = set()
            for curve in curves:
                label = "" if curve.arm in labelled else curve_label(curve.arm)
                labelled.add(curve.arm)
                color = theme.arms.get(curve.arm, theme.ink)
                style = {"color": color, "linewidth": 1.9, "marker": "o", "markersize": 3.5}
                line(axes, curve.passes, curve.values[name], label=label, **style)
            if name == "energy":
                axes.axhline(1, color=theme.faint, linewidth=1, linestyle=(0, (2, 2)))
            else:
                axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            axes.set_ylim(bottom=0)
            axes.set_title(PANELS[name], loc="left", fontsize=10)
            axes.set_xlabel("Passes over the training images")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(axis="y")
        handles, labels = panels[0].get_legend_handles_labels()
        if len(labels) > 1:
            figure.legend(
                handles, labels, loc="outside upper center", ncols=min(4, len(labels)), fontsize=8.5
            )
        return figure

    return draw


def _figures(event: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = (event.get("explanation") or {}).get("figures") or {}
    return found


def _value(figure: Mapping[str, Any] | None, name: str) -> float:
    value = (figure or {}).get("times_chance" if name == "energy" else "value")
    return _NAN if value is None else float(value)
