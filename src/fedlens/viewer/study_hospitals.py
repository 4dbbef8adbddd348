"""Hospitals on the study's page: who answered in which round, what each sent, and what ails it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fedlens.reports.absence import Event, absences, left_out
from fedlens.reports.federation_tables import (
    HospitalRow,
    held_out_steps,
    hospital_rows,
    of_kind,
    round_numbers,
)
from fedlens.reports.shares import Share, split_counts

Answer = Literal["answered", "partly", "missing", "refused", "idle"]

_WORDS: Mapping[Answer, str] = {
    "answered": "answered",
    "partly": "trained, then missed a measurement",
    "missing": "did not answer",
    "refused": "answer refused",
    "idle": "not asked",
}
_WORST: tuple[Answer, ...] = ("refused", "missing", "partly", "answered", "idle")
_COLUMNS = 60


@dataclass(frozen=True)
class Cell:
    """One hospital in one round, or in a few rounds one after another: the worst of them.

    Attributes:
        place: Column, from 0.
        kind: What happened.
        text: For hover.
    """

    place: int
    kind: Answer
    text: str


@dataclass(frozen=True)
class Attendance:
    """The grid of hospitals and rounds.

    Attributes:
        columns: Of the grid, planned rounds included.
        each: Rounds in one column.
        rows: Name, cells and the row in words, for each hospital.
        kinds: Those that occur, with their words, for the legend.
        last: Number of the last planned round.
    """

    columns: int
    each: int
    rows: tuple[tuple[str, tuple[Cell, ...], str], ...]
    kinds: tuple[tuple[Answer, str], ...]
    last: int


@dataclass(frozen=True)
class HospitalLine:
    """One hospital's line in the table of numbers.

    Attributes:
        name: Of the hospital.
        images: Training, validation and test images; a dash where unknown.
        last: The last round it answered in; a dash before.
        answered: Rounds out of those it was asked in.
        up: Megabytes it sent, all rounds together.
        down: Megabytes it got.
        trouble: What was noted last against it; empty where nothing was.
        own: Its figures in the last measured round; None in a sealed study.
    """

    name: str
    images: tuple[str, str, str]
    last: str
    answered: str
    up: str
    down: str
    trouble: str
    own: HospitalRow | None


def attendance(events: Sequence[Event]) -> Attendance:
    """Who answered in which round."""
    roster, rounds = events[0]["hospitals"], of_kind(events, "round")
    planned = max(events[0]["rounds"], 1)
    each = -(-planned // _COLUMNS)
    answers = {name: [(event["round"], _answer(event, name, roster)) for event in rounds] for name in roster}
    rows = tuple((name, tuple(_cells(answers[name], each)), _in_words(answers[name])) for name in roster)
    found = {cell.kind for _, cells, _ in rows for cell in cells}
    kinds = tuple((kind, _WORDS[kind]) for kind in _WORST[::-1] if kind in found)
    return Attendance(-(-planned // each), each, rows, kinds, planned)


def hospital_lines(
    events: Sequence[Event], shares: Sequence[Share], measured: Event | None
) -> tuple[HospitalLine, ...]:
    """The table of numbers.

    Args:
        events: The history.
        shares: Images by hospital and split, where they are known here.
        measured: The last round that was measured.
    """
    roster, rounds = events[0]["hospitals"], of_kind(events, "round")
    counts = dict(split_counts(shares))
    own: dict[str, HospitalRow] = {}
    if measured is not None and not events[0]["sealed"]:
        own = {row.name: row for row in hospital_rows(roster, measured, measured["evaluation"])}
    return tuple(_line(name, events, rounds, counts.get(name), own.get(name)) for name in roster)


def megabytes(rounds: Iterable[Event], way: str, name: str = "") -> float:
    """What a hospital, or all of them, sent or got over rounds, measurements included.

    Args:
        rounds: Finished ones.
        way: ``bytes_up`` or ``bytes_down``.
        name: Of the hospital; empty for all.
    """
    steps = [step for event in rounds for step in (event, *held_out_steps(event))]
    told = [
        said.get(way, 0)
        for step in steps
        for hospital, said in step["hospitals"].items()
        if name in ("", hospital)
    ]
    return float(sum(told)) / 1e6


def _line(
    name: str,
    events: Sequence[Event],
    rounds: Sequence[Event],
    counts: Sequence[int] | None,
    own: HospitalRow | None,
) -> HospitalLine:
    there = [event["round"] for event in rounds if name in event["hospitals"]]
    asked = sum(name in event["participants"] for event in rounds)
    told = (own.images, own.tested, "–") if own else ("–", "–", "–")
    return HospitalLine(
        name=name,
        images=_three(counts) if counts else told,
        last=f"round {there[-1]:,}" if there else "–",
        answered=f"{len(there):,} of {asked:,}",
        up=f"{megabytes(rounds, 'bytes_up', name):,.2f}",
        down=f"{megabytes(rounds, 'bytes_down', name):,.2f}",
        trouble=_trouble(name, events),
        own=own,
    )


def _three(counts: Sequence[int]) -> tuple[str, str, str]:
    train, validation, test = counts
    return f"{train:,}", f"{validation:,}", f"{test:,}"


def _trouble(name: str, events: Sequence[Event]) -> str:
    """The newest reason noted against a hospital, with its round."""
    for event in reversed(events):
        if event["event"] not in ("round", "failed", "segment"):
            continue
        for step in (event, *(event[key] for key in ("evaluation", "explanation") if key in event)):
            for away in absences(step):
                if away.hospital == name and away.reason:
                    when = f"Round {event['round']:,}" if event.get("round") else "Before the first round"
                    return f"{when}: {away.reason}"
    return ""


def _answer(event: Event, name: str, roster: Sequence[str]) -> Answer:
    asked = name in event["participants"]
    for away in absences(event, event["participants"]):
        if away.hospital == name and not away.counted:
            return "refused" if away.kind == "refused" else "missing"
    if any(name in left_out(step, roster) for step in held_out_steps(event)):
        return "partly"
    return "answered" if asked else "idle"


def _cells(answers: Sequence[tuple[int, Answer]], each: int) -> Iterable[Cell]:
    columns: dict[int, list[tuple[int, Answer]]] = {}
    for number, kind in answers:
        columns.setdefault((number - 1) // each, []).append((number, kind))
    for place, found in columns.items():
        kind = min((kind for _, kind in found), key=_WORST.index)
        numbers = [number for number, other in found if other == kind]
        yield Cell(place, kind, f"{round_numbers(numbers).capitalize()}: {_WORDS[kind]}")


def _in_words(answers: Sequence[tuple[int, Answer]]) -> str:
    parts = []
    for kind in _WORST[:-2]:
        numbers = [number for number, other in answers if other == kind]
        if numbers:
            parts.append(f"{_WORDS[kind]} in {round_numbers(numbers)}")
    return "; ".join(parts) or "answered every time"
