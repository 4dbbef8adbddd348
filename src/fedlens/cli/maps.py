"""Tables of measured maps: how they moved with rounds, and a hospital's own against the federation's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from fedlens.cli.output import table
from fedlens.home_explanations import Explained
from fedlens.reports.absence import left_out
from fedlens.reports.maps import Figures, share, times_chance

_COLUMNS = ("pointing", "times chance", "energy inside", "times chance", "stray")


def maps_by_round(events: Sequence[Mapping[str, Any]], roster: Sequence[str], most: int) -> list[str | Table]:
    """The federation's figures of each round that was measured, the last ``most`` of them; else nothing."""
    measured = [event for event in events if event.get("explanation", {}).get("figures")][-most:]
    rows = []
    for event in measured:
        explained = event["explanation"]
        away = ", ".join(left_out(explained, roster))
        rows.append([event["round"], explained["images"], *_cells(explained["figures"]), away])
    if not rows:
        return []
    shown = table(
        "Explanations by round, validation images", ["round", "images", *_COLUMNS, "away"], rows, text=0
    )
    shown.columns[-1].justify, shown.columns[-1].no_wrap = "left", False
    return [shown, ""]


def maps_by_hospital(
    events: Sequence[Mapping[str, Any]], homes: Mapping[str, Explained]
) -> list[str | Table]:
    """Each hospital's own figures of the last measurement and the federation's, as far as they are at hand.

    Those of an unsealed study stand in its history, all others in the hospitals' own folders.
    """
    last = next((event for event in reversed(events) if event.get("explanation", {}).get("figures")), None)
    if last is None:
        return []
    own: dict[str, Figures] = dict(last["explanation"].get("by_hospital", {}))
    findings: list[str] = []
    for name, home in homes.items():
        entry = next((entry for entry in home["rounds"] if entry["round"] == last["round"]), None)
        if entry is not None:
            own[name] = entry["own"]
            findings += findings_of(entry)
    if not own:
        return []
    rows = [[name, *_cells(figures)] for name, figures in own.items()]
    rows.append(["federation", *_cells(last["explanation"]["figures"])])
    title = f"Explanations of round {last['round']:,} by hospital"
    return [table(title, ["hospital", *_COLUMNS], rows), *dict.fromkeys(findings), ""]


def maps_at_home(home: Explained, most: int) -> list[str | Table]:
    """One hospital's own figures against the federation's, round by round; what it alone can see."""
    rows = []
    for entry in home["rounds"][-most:]:
        rows.append([entry["round"], home["hospital"], entry["images"], *_cells(entry["own"])])
        if entry["federation"] is not None:
            images = entry["federation_images"]
            rows.append(["", "federation", images, *_cells(entry["federation"])])
    columns = ["round", "whose", "images", *_COLUMNS]
    shown = table(f"Explanations of {home['hospital']} by {home['method']}, validation images", columns, rows)
    return [shown, *findings_of(home["rounds"][-1])]


def findings_of(entry: Mapping[str, Any]) -> list[str]:
    """What a hospital was found to stray into, and what the federation's classes are, in sentences."""
    found = [*(entry["straying"] or ()), *(entry["straying_classes"] or ())]
    return [f"Straying: {one['sentence']}" for one in found]


def _cells(figures: Figures) -> list[str]:
    located = [
        text
        for name in ("pointing", "energy")
        for text in (share(figures, name), times_chance(figures, name))
    ]
    return [*located, share(figures, "strays")]
