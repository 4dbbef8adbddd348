"""Which charts the study's page shows: training, hospitals, and explanations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fedlens.home_explanations import Explained
from fedlens.reports.absence import Event
from fedlens.reports.federation_tables import explained_rounds, held_out_steps, of_kind
from fedlens.reports.measures import LOCAL
from fedlens.reports.paper import ARM_LABELS
from fedlens.viewer.study_charts import Axis, Chart, Series, line_chart
from fedlens.viewer.study_state import ArmState, arm_label

_NAN = math.nan
_SHARE = Axis(share=True)
_TIMES = Axis(digits=2, low=0)
_ARM_STYLES: Mapping[str, int] = {
    "federated": 0,
    "explainable": 2,
    "central": 4,
    "local": 6,
    "explainable-outline": 5,
    "explainable-field": 7,
    "explainable-consistency": 1,
    "explainable-weighting": 3,
}


def training_charts(
    shown: ArmState, histories: Mapping[ArmState, Sequence[Event]], passes: float | None
) -> tuple[Chart, ...]:
    """Validation accuracy and loss of an arm over its rounds, other arms of its seed beside it.

    Args:
        shown: The arm.
        histories: Events of all arms.
        passes: Of the whole training; several arms are drawn over them, since their rounds differ. None where
            unknown: they are drawn over the shown arm's rounds.
    """
    arms = [shown, *(arm for arm in histories if arm.seed == shown.seed and arm != shown)]
    together = len(arms) > 1 and passes is not None
    length = passes if together and passes else shown.planned
    across = _over_passes(length) if together else _across(shown)
    accuracy: list[Series] = []
    loss: list[Series] = []
    for arm in arms:
        rounds = of_kind(histories[arm], "round")
        xs = [event["round"] * length / max(arm.planned, 1) for event in rounds]
        measured = [event.get("evaluation", {}) for event in rounds]
        name = arm_label(arm.arm) if len(arms) > 1 else "Validation"
        style, strong = _style(arm.arm), arm == shown
        group = ARM_LABELS["local"].partition(" (")[0] if arm.arm.startswith(LOCAL) and not strong else ""
        for series, figure in ((accuracy, "accuracy"), (loss, "loss")):
            values = _values(measured, figure)
            series.append(Series(name, style, xs, values, strong=strong, group=group))
        if strong:
            training = "Training" if len(arms) == 1 else f"{name}, training"
            loss.insert(0, Series(training, style, xs, _values(rounds, "loss"), dotted=True))
    drawn = (
        line_chart("Validation accuracy", accuracy, across, _SHARE),
        line_chart("Loss (cross entropy)", loss, across, Axis(low=0)),
    )
    return tuple(chart for chart in drawn if chart)


def hospital_charts(shown: ArmState, events: Sequence[Event]) -> tuple[Chart, ...]:
    """What each hospital found in the clear; of a sealed study, only what it sent."""
    roster = events[0]["hospitals"]
    rounds = of_kind(events, "round")
    across = _across(shown)
    if events[0]["sealed"]:
        steps = [[event, *held_out_steps(event)] for event in rounds]
        sent = _by_hospital(roster, rounds, [[_sent(step) for step in each] for each in steps])
        return _drawn([("Megabytes sent by each hospital", sent, across, Axis(digits=2, low=0))])
    measured = [event for event in rounds if "evaluation" in event]
    accuracy, loss = (
        _by_hospital(roster, measured, [[_said(event["evaluation"], name)] for event in measured])
        for name in ("accuracy", "loss")
    )
    return _drawn(
        [
            ("Validation accuracy of each hospital", accuracy, across, _SHARE),
            ("Validation loss of each hospital", loss, across, Axis(low=0)),
        ]
    )


def explanation_charts(shown: ArmState, events: Sequence[Event]) -> tuple[Chart, ...]:
    """How maps moved: pointing and energy against chance, and straying; nothing before the second time."""
    rounds = explained_rounds(events)
    if len(rounds) < 2:
        return ()
    xs = [event["round"] for event in rounds]
    found = [event["explanation"]["figures"] for event in rounds]
    localised = [
        Series(title, style, xs, [_figure(figures, name, "times_chance") for figures in found])
        for style, (name, title) in enumerate((("energy", "Energy inside"), ("pointing", "Pointing")))
    ]
    strays = [Series("Stray maps", 3, xs, [_figure(figures, "strays", "value") for figures in found])]
    across = _across(shown)
    drawn = (
        line_chart("Inside outlines, times chance", localised, across, _TIMES, rule=1.0),
        line_chart("Stray maps", strays, across, Axis(share=True, low=0)),
    )
    return tuple(chart for chart in drawn if chart)


def home_charts(shown: ArmState, homes: Mapping[str, Explained]) -> tuple[Chart, ...]:
    """Each hospital's own maps against chance, where its folder is on this machine."""
    series = [
        Series(
            name,
            style,
            [entry["round"] for entry in home["rounds"]],
            [_figure(entry["own"], "energy", "times_chance") for entry in home["rounds"]],
        )
        for style, (name, home) in enumerate(homes.items())
        if len(home["rounds"]) > 1
    ]
    chart = line_chart(
        "Energy inside outlines at each hospital, times chance", series, _across(shown), _TIMES, rule=1.0
    )
    return (chart,) if chart else ()


def _drawn(charts: Sequence[tuple[str, Sequence[Series], Axis, Axis]]) -> tuple[Chart, ...]:
    return tuple(found for chart in charts if (found := line_chart(*chart)))


def _across(shown: ArmState) -> Axis:
    return Axis(name="Round", before="round ", digits=0, low=1, high=max(2, shown.planned))


def _over_passes(passes: float) -> Axis:
    return Axis(name="Passes over the training images", before="pass ", digits=1, low=0, high=passes)


def _style(arm: str) -> int:
    """A colour that an arm has wherever it is drawn."""
    return _ARM_STYLES.get("local" if arm.startswith(LOCAL) else arm, 0)


def _by_hospital(
    roster: Sequence[str], rounds: Sequence[Event], said: Sequence[Sequence[Mapping[str, float]]]
) -> list[Series]:
    """A line for each hospital: sums over a round's steps of what each step says of it."""
    xs = [event["round"] for event in rounds]
    series = []
    for style, name in enumerate(roster):
        parts = [[step[name] for step in steps if name in step] for steps in said]
        series.append(Series(name, style, xs, [sum(part) if part else _NAN for part in parts]))
    return series


def _sent(step: Event) -> dict[str, float]:
    return {name: said["bytes_up"] / 1e6 for name, said in step["hospitals"].items()}


def _said(step: Event, name: str) -> dict[str, float]:
    return {hospital: _number(said.get(name)) for hospital, said in step["hospitals"].items()}


def _values(events: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [_number(event.get(name)) for event in events]


def _figure(figures: Mapping[str, Mapping[str, Any]], name: str, key: str) -> float:
    return _number(figures.get(name, {}).get(key))


def _number(value: float | None) -> float:
    return _NAN if value is None else float(value)
