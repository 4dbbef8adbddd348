"""The page of a study that ran between machines, from its history.

No image, no prediction and no test figure came back from the hospitals; what the page shows is what
the coordinator saw. It never passes over a round that was run without a hospital.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fedlens.metrics import class_rates, wilson
from fedlens.reports import figures
from fedlens.reports.absence import Absence, Event, absences, left_out
from fedlens.reports.comparison import Summary
from fedlens.reports.figures import training_curve
from fedlens.reports.headline import Tile, note_text, range_text
from fedlens.reports.map_table import map_rows
from fedlens.reports.maps import share, times_chance
from fedlens.reports.page import Picture, confusion_picture, flat, picture, render
from fedlens.reports.paper import percent
from fedlens.reports.sealing import sealing_notes

_NAN = float("nan")
_NBSP = "\u00a0"
_ENDS = {"rounds": "all rounds done", "patience": "validation no longer improved"}


@dataclass(frozen=True, eq=False)
class FederationInput:
    """All that the page shows. Names and reasons come from other machines: they are escaped.

    Attributes:
        title: Heading of the page, the study's name.
        study: The study's settings as plain data, complete.
        events: The history, from ``start`` to ``end``.
        versions: Version of each library, and the machine, by name.
        created: Date and time as text.
    """

    title: str
    study: Mapping[str, Any]
    events: Sequence[Event]
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = ""

    @property
    def start(self) -> Event:
        """The history's first event."""
        return self.events[0]

    @property
    def end(self) -> Event:
        """The history's last event."""
        return self.events[-1]

    @property
    def rounds(self) -> list[Event]:
        """Finished rounds."""
        return self.of("round")

    @property
    def kept(self) -> Event:
        """The round whose network was kept: the best one where the study stops by patience, else the last."""
        number = self.end["best_round" if self.study["training"]["patience"] else "rounds"]
        return next(event for event in self.rounds if event["round"] == number)

    @property
    def evaluation(self) -> Event:
        """What hospitals found of the kept network; a run's last round is always measured, as is its best."""
        evaluation: Event = self.kept["evaluation"]
        return evaluation

    @property
    def explained(self) -> list[Event]:
        """Rounds after which maps were measured, and found."""
        return [event for event in self.rounds if event.get("explanation", {}).get("figures")]

    def of(self, kind: str) -> list[Event]:
        """All events of one kind."""
        return [event for event in self.events if event["event"] == kind]


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
    """One hospital's own figures in the kept round; of an unsealed study only."""

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


def render_federation(report: FederationInput) -> str:
    """The page as HTML text; the same input gives the same page."""
    measured = report.evaluation["images"] > 0
    return render(
        "federation.html.j2",
        {
            "report": report,
            "headline": _headline(report),
            "tiles": _tiles(report) if measured else (),
            "subsets": list(_subsets(report)),
            "failures": len(report.of("failed")),
            "classes": _classes(report.evaluation, report.start["classes"]) if measured else (),
            "pictures": _pictures(report, measured),
            "rows": list(_rows(report)),
            "hospitals": () if report.start["sealed"] else list(_hospitals(report)),
            "facts": list(_facts(report)),
            "explained": report.explained[-1] if report.explained else None,
            "maps": map_rows(report.explained[-1]["explanation"]["figures"]) if report.explained else (),
            "moved": list(_moved(report)),
            "notes": sealing_notes(report.events),
            "settings": list(flat(report.study)),
            "asked": len(report.start["hospitals"]),
        },
    )


def _headline(report: FederationInput) -> str:
    """What was trained, by whom, how well it does, and what that figure is not; one sentence."""
    roster, done, planned = report.start["hospitals"], report.end["rounds"], report.start["rounds"]
    over = _counted(done, "round") if done == planned else f"{done:,} of {_counted(planned, 'round')}"
    said = (
        f"In study {report.title}, {_counted(len(roster), 'hospital')} trained one network together over "
        f"{over}, exchanging weights and never images; "
    )
    evaluation = report.evaluation
    images, present = evaluation["images"], len(evaluation["hospitals"])
    if not images:
        return said + "no validation image was measured, so nothing here says how well it does."
    of = f"all {len(roster):,}" if present == len(roster) else f"{present:,} of the {len(roster):,}"
    accuracy = _accuracy(evaluation)
    chosen = "the round, and perhaps settings," if report.study["training"]["patience"] else "settings"
    return (
        f"{said}on the {_counted(images, 'validation image')} of {of} hospitals the network of round "
        f"{report.kept['round']:,} decides {percent(accuracy.mean)}{_NBSP}% rightly{range_text(accuracy)}, "
        f"which is no test: such images may have chosen {chosen} before."
    )


def _tiles(report: FederationInput) -> tuple[Tile, ...]:
    evaluation, kept = report.evaluation, report.kept
    accuracy = _accuracy(evaluation)
    area = evaluation["auroc_macro"]
    return (
        Tile("Validation accuracy", f"{percent(accuracy.mean)} %", note_text(accuracy)),
        Tile("F1 (macro)", f"{percent(evaluation['f1_macro'])} %", "mean over classes"),
        Tile("AUROC (macro)", "–" if area is None else f"{percent(area)} %", "mean over classes"),
        Tile(
            "Validation images",
            f"{evaluation['images']:,}",
            f"beside {kept['images']:,} training images in round {kept['round']:,}",
        ),
    )


def _subsets(report: FederationInput) -> Iterator[tuple[str, str, str]]:
    """Which step went without which hospital in which rounds."""
    for event in report.of("segment"):
        for name in left_out(event, report.start["hospitals"] if "sealing" in event else ()):
            yield "Images counted without", name, "before the first round"
    trained = ((event, event["participants"], event["round"]) for event in report.rounds)
    measured = (
        (event["evaluation"], report.start["hospitals"], event["round"])
        for event in report.rounds
        if "evaluation" in event
    )
    explained = (
        (event["explanation"], report.start["hospitals"], event["round"])
        for event in report.rounds
        if "explanation" in event
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
            yield what, name, f"in {_numbers(numbers)}"


def _rows(report: FederationInput) -> Iterator[RoundRow]:
    """Rounds and failures as they followed each other."""
    roster = report.start["hospitals"]
    for event in report.events:
        if event["event"] == "round":
            evaluation = event.get("evaluation", {})
            seconds = sum(event["seconds"].values()) + sum(step["seconds"] for step in _held_out(event))
            yield RoundRow(
                number=event["round"],
                kept=event is report.kept,
                failed="",
                hospitals=tuple(event["hospitals"]),
                away=_away(event, event["participants"], roster),
                loss=f"{event['loss']:.4f}",
                accuracy=percent(evaluation["accuracy"]) if evaluation.get("images") else "–",
                up=f"{_megabytes(event, 'bytes_up'):.2f}",
                down=f"{_megabytes(event, 'bytes_down'):.2f}",
                seconds=f"{seconds:,.1f}",
            )
        elif event["event"] == "failed":
            yield RoundRow(
                event["round"], False, event["reason"], tuple(event.get("hospitals", ())), _away(event)
            )


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


def _held_out(event: Event) -> list[Event]:
    """What hospitals did with their validation images in a finished round."""
    return [event[step] for step in ("evaluation", "explanation") if step in event]


def _moved(report: FederationInput) -> Iterator[MapsRow]:
    for event in report.explained:
        explanation = event["explanation"]
        found = explanation["figures"]
        pointing, energy = (
            (share(found, name), times_chance(found, name)) for name in ("pointing", "energy")
        )
        yield MapsRow(
            event["round"], f"{explanation['images']:,}", *pointing, *energy, share(found, "strays")
        )


def _megabytes(event: Event, way: str) -> float:
    """A hospital's mean in training, in validation and in explaining, added up."""
    steps = [event, *_held_out(event)]
    return float(sum(np.mean([said[way] for said in step["hospitals"].values()]) for step in steps) / 1e6)


def _classes(evaluation: Event, classes: Sequence[str]) -> list[tuple[str, int, dict[str, Summary]]]:
    """Name, images and rates of each class; a share of nothing is not a number."""
    confusion = _confusion(evaluation)
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


def _hospitals(report: FederationInput) -> Iterator[HospitalRow]:
    trained, measured = report.kept["hospitals"], report.evaluation["hospitals"]
    for name in report.start["hospitals"]:
        own, tested = trained.get(name), measured.get(name)
        yield HospitalRow(
            name,
            f"{own['images']:,}" if own else "–",
            f"{own['loss']:.4f}" if own else "–",
            f"{tested['images']:,}" if tested else "–",
            _accuracy(tested) if tested else _alone(_NAN),
            _alone(tested["f1_macro"] if tested and tested["images"] else _NAN),
        )


def _facts(report: FederationInput) -> Iterator[tuple[str, str]]:
    roster, segments = report.start["hospitals"], report.of("segment")
    yield "Hospitals", ", ".join(roster)
    yield "Rounds", f"{report.end['rounds']:,} of {report.start['rounds']:,}, {_ENDS[report.end['reason']]}"
    yield "Strategy", report.start["strategy"]
    yield "Updates", "sealed" if report.start["sealed"] else "in the clear"
    if segments:
        yield "Fewest hospitals in an opened sum", f"{segments[-1]['threshold']:,} of {len(roster):,}"
        yield "Roster fingerprint", segments[-1]["roster"]
        yield "Starts of the coordinator", f"{len(segments):,}"


def _pictures(report: FederationInput, measured: bool) -> dict[str, Picture]:
    training = report.study["training"]
    curve = training_curve("federated", report.study["seed"], report.events, passes=training["passes"])
    pictures = {
        "curves": picture(
            figures.training_curves([curve]),
            "Line charts of validation accuracy and loss over passes; their figures stand in the table of "
            "rounds.",
        )
    }
    if measured:
        pictures["confusion"] = confusion_picture(_confusion(report.evaluation), report.start["classes"])
    return pictures


def _confusion(evaluation: Event) -> npt.NDArray[np.int64]:
    return np.array(evaluation["confusion"], np.int64)


def _accuracy(evaluation: Event) -> Summary:
    confusion = _confusion(evaluation)
    return _share(int(confusion.trace()), int(confusion.sum()))


def _share(part: int, whole: int) -> Summary:
    low, high = wilson(part, whole)
    return _summary(part / whole if whole else _NAN, low, high)


def _alone(value: float) -> Summary:
    """A figure without an interval: sums do not give one."""
    return _summary(value, _NAN, _NAN)


def _summary(value: float, low: float, high: float) -> Summary:
    return Summary("federated", "validation", 0, "", 1, value, _NAN, low, high)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _numbers(rounds: Iterable[int]) -> str:
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
