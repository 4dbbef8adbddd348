"""Tables of a federation from its history alone, while it runs and afterwards.

Cells are text, ready for a page. No round passes in silence that was run without a hospital.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedlens.metrics import class_rates, wilson
from fedlens.reports.absence import Absence, Event, absences, left_out
from fedlens.reports.comparison import Summary
from fedlens.reports.headline import Tile, note_text
from fedlens.reports.maps import share, times_chance
from fedlens.reports.paper import percent

_NAN = float("nan")


@dataclass(frozen=True)
class RoundRow:
    """One line of the table of rounds.

    Attributes:
        number: Of the round; 0 for what comes before the first.
        kept: Its network is the one that was kept.
        failed: Why it came to nothing; empty for a finished round.
        hospitals: Who took part, or in a failed round, who answered.
        away: Who was missing or refused, with the step where it is not training.
        loss: Mean cross entropy while training; a dash, as all that follow, where there is none.
        accuracy: On validation images, percent.
        up: Megabytes that a hospital sent, on average.
        down: Megabytes that it got.
        seconds: The round took.
    """

    number: int
    kept: bool
    failed: str
    hospitals: tuple[str, ...]
    away: tuple[tuple[str, Absence], ...]
    loss: str = "–"
    accuracy: str = "–"
    up: str = "–"
    down: str = "–"
    seconds: str = "–"


@dataclass(frozen=True)
class HospitalRow:
    """One hospital's own figures in one round; of an unsealed study only."""

    name: str
    images: str
    loss: str
    tested: str
    accuracy: Summary
    f1: Summary


@dataclass(frozen=True)
class MapsRow:
    """How hospitals' maps did after one round: shares in percent, and in multiples of chance."""

    number: int
    images: str
    pointing: str
    pointing_times: str
    energy: str
    energy_times: str
    strays: str


def of_kind(events: Sequence[Event], kind: str) -> list[Event]:
    """All events of one kind, in order."""
    return [event for event in events if event["event"] == kind]


def kept_round(events: Sequence[Event], *, patience: bool) -> Event | None:
    """The round whose network is kept, or would be if the study ended now; None before the first.

    Args:
        events: The history.
        patience: Whether the study stops by patience: the best round is kept then, else the last.
    """
    rounds = of_kind(events, "round")
    if not patience or not rounds:
        return rounds[-1] if rounds else None
    best = next(event["best_round"] for event in reversed(events) if "best_round" in event)
    return next(event for event in rounds if event["round"] == best)


def explained_rounds(events: Sequence[Event]) -> list[Event]:
    """Rounds after which maps were measured, and found."""
    return [event for event in of_kind(events, "round") if event.get("explanation", {}).get("figures")]


def without_hospitals(events: Sequence[Event]) -> Iterator[tuple[str, str, str]]:
    """Which step went without which hospital in which rounds."""
    roster = events[0]["hospitals"]
    for event in of_kind(events, "segment"):
        for name in left_out(event, roster if "sealing" in event else ()):
            yield "Images counted without", name, "before the first round"
    rounds = of_kind(events, "round")
    trained = [(event, event["participants"], event["round"]) for event in rounds]
    measured, explained = (
        [(event[step], roster, event["round"]) for event in rounds if step in event]
        for step in ("evaluation", "explanation")
    )
    for what, steps in (
        ("Trained without", trained),
        ("Measured without", measured),
        ("Explained without", explained),
    ):
        without: dict[str, list[int]] = {}
        for step, expected, number in steps:
            for name in left_out(step, expected):
                without.setdefault(name, []).append(number)
        for name, numbers in without.items():
            yield what, name, f"in {round_numbers(numbers)}"


def round_rows(events: Sequence[Event], kept: Event | None) -> Iterator[RoundRow]:
    """Rounds and failures as they followed each other.

    Args:
        events: The history.
        kept: Of its rounds, the one whose network is kept.
    """
    roster = events[0]["hospitals"]
    for event in events:
        if event["event"] == "round":
            evaluation = event.get("evaluation", {})
            yield RoundRow(
                number=event["round"],
                kept=event is kept,
                failed="",
                hospitals=tuple(event["hospitals"]),
                away=_away(event, event["participants"], roster),
                loss=f"{event['loss']:.4f}",
                accuracy=percent(evaluation["accuracy"]) if evaluation.get("images") else "–",
                up=f"{_megabytes(event, 'bytes_up'):.2f}",
                down=f"{_megabytes(event, 'bytes_down'):.2f}",
                seconds=f"{round_seconds(event):,.1f}",
            )
        elif event["event"] == "failed":
            yield RoundRow(
                event["round"], False, event["reason"], tuple(event.get("hospitals", ())), _away(event)
            )


def round_seconds(event: Event) -> float:
    """How long a finished round took, validation and explanations included."""
    return float(sum(event["seconds"].values()) + sum(step["seconds"] for step in held_out_steps(event)))


def held_out_steps(event: Event) -> list[Event]:
    """What hospitals did with their validation images in a finished round."""
    return [event[step] for step in ("evaluation", "explanation") if step in event]


def maps_by_round(events: Sequence[Event]) -> Iterator[MapsRow]:
    """How explanations moved."""
    for event in explained_rounds(events):
        explanation = event["explanation"]
        found = explanation["figures"]
        pointing, energy = (
            (share(found, name), times_chance(found, name)) for name in ("pointing", "energy")
        )
        yield MapsRow(
            event["round"], f"{explanation['images']:,}", *pointing, *energy, share(found, "strays")
        )


def class_rows(evaluation: Event, classes: Sequence[str]) -> list[tuple[str, int, dict[str, Summary]]]:
    """Name, images and rates of each class; a share of nothing is not a number."""
    confusion = confusion_of(evaluation)
    hits, support, called = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    images, scores = confusion.sum(), class_rates(confusion)["f1"]
    rows = []
    for place, name in enumerate(classes):
        right, own, said = int(hits[place]), int(support[place]), int(called[place])
        area = evaluation["auroc"][name]
        rates = {
            "recall": _share(right, own),
            "precision": _share(right, said),
            "specificity": _share(int(images) - own - said + right, int(images) - own),
            "f1": _alone(float(scores[place]) if own or said else _NAN),
            "auroc": _alone(_NAN if area is None else area),
        }
        rows.append((name, own, rates))
    return rows


def hospital_rows(roster: Sequence[str], trained: Event, evaluation: Event) -> Iterator[HospitalRow]:
    """Each hospital's own figures.

    Args:
        roster: All hospitals of the study.
        trained: The round that is shown.
        evaluation: What hospitals found of its network.
    """
    for name in roster:
        own, tested = trained["hospitals"].get(name), evaluation["hospitals"].get(name)
        yield HospitalRow(
            name,
            f"{own['images']:,}" if own else "–",
            f"{own['loss']:.4f}" if own else "–",
            f"{tested['images']:,}" if tested else "–",
            accuracy_of(tested) if tested else _alone(_NAN),
            _alone(tested["f1_macro"] if tested and tested["images"] else _NAN),
        )


def validation_tiles(evaluation: Event, trained: Event) -> tuple[Tile, ...]:
    """Accuracy with its interval, two figures that sums give no interval of, and over how many images.

    Args:
        evaluation: What hospitals found of a round's network.
        trained: That round.
    """
    accuracy, area = accuracy_of(evaluation), evaluation["auroc_macro"]
    return (
        Tile("Validation accuracy", f"{percent(accuracy.mean)} %", note_text(accuracy)),
        Tile("F1 (macro)", f"{percent(evaluation['f1_macro'])} %", "mean over classes"),
        Tile("AUROC (macro)", "–" if area is None else f"{percent(area)} %", "mean over classes"),
        Tile(
            "Validation images",
            f"{evaluation['images']:,}",
            f"beside {trained['images']:,} training images in round {trained['round']:,}",
        ),
    )


def confusion_of(evaluation: Event) -> npt.NDArray[np.int64]:
    """(C, C) counts, true classes in rows."""
    return np.array(evaluation["confusion"], np.int64)


def accuracy_of(evaluation: Event) -> Summary:
    """Accuracy with Wilson's interval."""
    confusion = confusion_of(evaluation)
    return _share(int(confusion.trace()), int(confusion.sum()))


def round_numbers(rounds: Iterable[int]) -> str:
    """``round 4``, ``rounds 2, 5–8 and 12``."""
    runs: list[list[int]] = []
    for number in rounds:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = [f"{run[0]:,}" if len(run) == 1 else f"{run[0]:,}–{run[-1]:,}" for run in runs]
    word = "round" if len(runs) == len(runs[0]) == 1 else "rounds"
    return f"{word} " + " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def _away(
    event: Event, participants: Sequence[str] = (), roster: Sequence[str] = ()
) -> tuple[tuple[str, Absence], ...]:
    found = [("", away) for away in absences(event, participants)]
    if "evaluation" in event:
        found += [("validation", away) for away in absences(event["evaluation"], roster)]
    if "explanation" in event:
        explanation = event["explanation"]
        found += [("explanation", away) for away in absences(explanation, roster)]
        found += [("explanation totals", away) for away in absences(explanation.get("told", {}))]
    return tuple(found)


def _megabytes(event: Event, way: str) -> float:
    """A hospital's mean in training, in validation and in explaining, added up."""
    steps = [event, *held_out_steps(event)]
    return float(sum(np.mean([said[way] for said in step["hospitals"].values()]) for step in steps) / 1e6)


def _share(part: int, whole: int) -> Summary:
    low, high = wilson(part, whole)
    return _summary(part / whole if whole else _NAN, low, high)


def _alone(value: float) -> Summary:
    """A figure without an interval: sums do not give one."""
    return _summary(value, _NAN, _NAN)


def _summary(value: float, low: float, high: float) -> Summary:
    return Summary("federated", "validation", 0, "", 1, value, _NAN, low, high)
