"""One arm of a study in full, ready for the page's templates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fedlens.home_explanations import read_homes
from fedlens.reports.absence import Event
from fedlens.reports.comparison import Summary
from fedlens.reports.federation_tables import (
    MapsRow,
    RoundRow,
    class_rows,
    explained_rounds,
    kept_round,
    maps_by_round,
    of_kind,
    round_rows,
    without_hospitals,
)
from fedlens.reports.map_table import MapRow, map_rows
from fedlens.reports.maps import Figures, share, times_chance
from fedlens.study import Study
from fedlens.viewer.study_charts import Chart
from fedlens.viewer.study_curves import explanation_charts, home_charts, hospital_charts, training_charts
from fedlens.viewer.study_hospitals import Attendance, HospitalLine, attendance, hospital_lines, megabytes
from fedlens.viewer.study_results import Results
from fedlens.viewer.study_sealing import Seals, seals_of
from fedlens.viewer.study_state import ArmState

_NEWEST = 8
"""Rounds that are shown unfolded."""


@dataclass(frozen=True)
class Explanations:
    """Maps of validation images, measured at the hospitals after some rounds."""

    number: int
    method: str
    images: int
    hospitals: int
    facts: tuple[tuple[str, str], ...]
    rows: tuple[MapRow, ...]
    moved: tuple[MapsRow, ...]
    charts: tuple[Chart, ...]
    homes: tuple[Chart, ...]


@dataclass(frozen=True)
class ShownArm:
    """Everything of the arm that is looked at.

    Attributes:
        state: Where it stands.
        strategy: How updates are put together.
        roster: Its hospitals.
        charts: Of training.
        without: Which step went without which hospital when.
        rounds: Newest first.
        older: Of these, the ones that are folded away.
        failures: How often a round came to nothing.
        kept: Number of the round whose network is kept, or would be now; 0 before the first.
        classes: Name, images and rates of each class on validation images.
        measured: The round that they are of.
        attendance: Who answered; None where one member trains alone.
        hospitals: Lines of the table of numbers.
        hospital_charts: Values of each hospital.
        total: Megabytes up and down, all hospitals together.
        seals: How updates travelled; None where one member trains alone.
        explanations: None where no map was measured.
    """

    state: ArmState
    strategy: str
    roster: tuple[str, ...]
    charts: tuple[Chart, ...]
    without: tuple[tuple[str, str, str], ...]
    rounds: tuple[RoundRow, ...]
    older: tuple[RoundRow, ...]
    failures: int
    kept: int
    classes: tuple[tuple[str, int, Mapping[str, Summary]], ...]
    measured: int
    attendance: Attendance | None
    hospitals: tuple[HospitalLine, ...]
    hospital_charts: tuple[Chart, ...]
    total: tuple[str, str]
    seals: Seals | None
    explanations: Explanations | None


def shown_arm(
    arm: ArmState, histories: Mapping[ArmState, Sequence[Event]], study: Study | None, results: Results
) -> ShownArm:
    """Put together what is shown of an arm that has begun.

    Args:
        arm: The arm.
        histories: Events of all arms that have begun.
        study: The study's settings; None where none were kept.
        results: Figures on test images so far.

    Raises:
        HistoryError: What a hospital keeps at home on this machine is damaged.
    """
    events, place = histories[arm], arm.place
    rounds = of_kind(events, "round")
    patience = bool(study and study.training.patience)
    kept = kept_round(events, patience=patience)
    measured = measured_round(events, kept)
    rows = tuple(reversed(tuple(round_rows(events, kept if arm.state == "finished" else None))))
    together = place is not None and not place.alone
    evaluated = measured["evaluation"] if measured else {}
    return ShownArm(
        state=arm,
        strategy=events[0]["strategy"],
        roster=tuple(events[0]["hospitals"]),
        charts=training_charts(arm, histories, study.training.passes if study else None),
        without=tuple(without_hospitals(events)),
        rounds=rows[:_NEWEST],
        older=rows[_NEWEST:],
        failures=len(of_kind(events, "failed")),
        kept=kept["round"] if kept else 0,
        classes=tuple(class_rows(evaluated, events[0]["classes"])) if evaluated.get("images") else (),
        measured=measured["round"] if measured else 0,
        attendance=attendance(events) if together and rounds else None,
        hospitals=hospital_lines(events, results.shares, measured) if together else (),
        hospital_charts=hospital_charts(arm, events) if together else (),
        total=(f"{megabytes(rounds, 'bytes_up'):,.1f}", f"{megabytes(rounds, 'bytes_down'):,.1f}"),
        seals=seals_of(events) if together else None,
        explanations=_explanations(arm, events),
    )


def measured_round(events: Sequence[Event], kept: Event | None) -> Event | None:
    """The kept round if it was measured, else the last one that was."""
    if kept is not None and "evaluation" in kept:
        return kept
    return next((event for event in reversed(of_kind(events, "round")) if "evaluation" in event), None)


def _explanations(arm: ArmState, events: Sequence[Event]) -> Explanations | None:
    rounds = explained_rounds(events)
    if not rounds or arm.place is None:
        return None
    last = rounds[-1]["explanation"]
    return Explanations(
        number=rounds[-1]["round"],
        method=last["method"],
        images=last["images"],
        hospitals=len(last["hospitals"]),
        facts=tuple(_map_facts(last["figures"])),
        rows=map_rows(last["figures"]),
        moved=tuple(reversed(tuple(maps_by_round(events)))),
        charts=explanation_charts(arm, events),
        homes=home_charts(arm, read_homes(arm.place.folder)),
    )


def _map_facts(figures: Figures) -> Iterator[tuple[str, str]]:
    """What says most of where maps lie; localisation never without what a random map would get."""
    for name, title in (
        ("pointing", "Hottest place inside the outline"),
        ("energy", "Heat inside the outline"),
    ):
        if name in figures:
            yield title, f"{share(figures, name)}, {times_chance(figures, name)} times chance"
    if "strays" in figures:
        yield "Maps that stray to where no disease can be", share(figures, "strays")
