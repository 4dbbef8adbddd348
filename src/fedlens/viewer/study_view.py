"""All that the study's page shows, as text and numbers ready for its templates."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from fedlens.reports.absence import Event
from fedlens.reports.comparison import Gain
from fedlens.reports.explanation_page import ExplanationView, explanation_view
from fedlens.reports.federation_tables import of_kind, validation_tiles
from fedlens.reports.headline import Tile, headline, tiles
from fedlens.reports.html import main_arm
from fedlens.reports.maps import DASH
from fedlens.reports.paper import METRICS, ResultRow, footnotes, percent, results_table
from fedlens.study import Study
from fedlens.viewer.study_downloads import Download, downloads
from fedlens.viewer.study_files import StudyFiles
from fedlens.viewer.study_results import Results
from fedlens.viewer.study_shown import ShownArm, measured_round, shown_arm
from fedlens.viewer.study_state import WORDS, ArmState, Standing


@dataclass(frozen=True)
class ArmRow:
    """One arm in the list of arms."""

    state: ArmState
    word: str
    query: str
    shown: bool
    done: float
    validation: str
    test: str


@dataclass(frozen=True)
class Compared:
    """Figures on test images.

    Attributes:
        headline: What came out, in sentences.
        metrics: Columns of the table of arms.
        rows: Its lines.
        notes: What a reader has to know.
        identical: The explainable arm gave the very same probabilities as the federated one.
        gains: Federated against alone, hospital by hospital.
        seeds: Training seeds.
        quality: Explanations of test images; None where they were not measured.
    """

    headline: str
    metrics: tuple[str, ...]
    rows: tuple[ResultRow, ...]
    notes: tuple[str, ...]
    identical: bool
    gains: tuple[Gain, ...]
    seeds: int
    quality: ExplanationView | None


@dataclass(frozen=True)
class StudyView:
    """The page.

    Attributes:
        title: The study's name.
        standing: Where it stands.
        word: Its state for people.
        said: What is read out when it changes.
        left: Time that the current arm still takes, in words; empty where unknown.
        ends: When that would be, ISO 8601; empty where unknown.
        told: When the last round ended, ISO 8601; empty before the first.
        sign: When anything was last written.
        tiles: Large numbers.
        arms: All arms.
        shown: The arm that is looked at; None before the first.
        compared: None before the first arm has finished.
        results: Whether figures are being measured, and why there may be none.
        downloads: Files that can be had.
        query: Names the arm in an address; empty where it is the current one.
    """

    title: str
    standing: Standing
    word: str
    said: str
    left: str
    ends: str
    told: str
    sign: str
    tiles: tuple[Tile, ...]
    arms: tuple[ArmRow, ...]
    shown: ShownArm | None
    compared: Compared | None
    results: Results
    downloads: tuple[Download, ...]
    query: str

    @property
    def seeds(self) -> int:
        """Training seeds, begun and to come."""
        return len({row.state.seed for row in self.arms})

    @property
    def sections(self) -> tuple[tuple[str, str], ...]:
        """Ends of the sections' ids, and their names, for those that the page has."""
        shown, results = self.shown, self.results
        there = {
            "arms": ("Arms", len(self.arms) > 1),
            "training": ("Training", shown is not None and shown.charts),
            "results": ("Comparison", self.compared or results.busy or results.problem),
            "hospitals": ("Hospitals", shown is not None and shown.hospitals),
            "seals": ("Seals", shown is not None and shown.seals),
            "explanations": ("Explanations", shown is not None and shown.explanations),
            "quality": ("Explanation quality", self.compared is not None and self.compared.quality),
            "rounds": ("Rounds", shown is not None and shown.rounds),
            "links": ("Files", True),
        }
        return tuple((name, title) for name, (title, here) in there.items() if here)

    @property
    def ended(self) -> int:
        """Arms that have finished."""
        return sum(row.state.state == "finished" for row in self.arms)

    @property
    def unfinished(self) -> bool:
        """Whether some arm has no figures on test images yet."""
        return any(row.test == DASH for row in self.arms)

    @property
    def own(self) -> bool:
        """Whether figures of single hospitals are known."""
        return self.shown is not None and any(row.own for row in self.shown.hospitals)


def study_view(
    files: StudyFiles, study: Study | None, standing: Standing, results: Results, chosen: ArmState | None
) -> StudyView:
    """Put the page together.

    Args:
        files: Of the run folder.
        study: Its settings; None where none were kept.
        standing: Where it stands.
        results: Figures on test images so far.
        chosen: The arm to look at; the current one where None.

    Raises:
        HistoryError: A file is damaged.
    """
    histories = {arm: files.events(arm.place) for arm in standing.arms if arm.place is not None}
    arm = chosen or _main(standing)
    shown = shown_arm(arm, histories, study, results) if arm is not None and histories.get(arm) else None
    compared = _compared(results)
    current = standing.current
    return StudyView(
        title=study.name if study else files.root.name,
        standing=standing,
        word=WORDS[standing.state],
        said=_said(standing, histories.get(current, ()) if current else ()),
        left=duration(current.left) if current and current.left is not None else "",
        ends=_iso(current.told + current.left) if current and current.left is not None else "",
        told=_iso(current.told) if current and current.done else "",
        sign=_iso(standing.sign),
        tiles=_tiles(arm, histories, results),
        arms=tuple(_arm_row(entry, arm, histories, results) for entry in standing.arms),
        shown=shown,
        compared=compared,
        results=results,
        downloads=downloads(files, arm),
        query=_query(chosen) if chosen else "",
    )


def duration(seconds: float) -> str:
    """A time to come, no more exactly than it is known."""
    minutes = round(seconds / 60)
    if seconds < 50:
        return "less than a minute"
    if minutes < 60:
        return f"about {max(minutes, 1)} min"
    hours, minutes = divmod(round(minutes / 5) * 5, 60)
    return f"about {hours} h {minutes} min" if minutes else f"about {hours} h"


def _main(standing: Standing) -> ArmState | None:
    """The arm at work, or when all is done, the federated one of the first seed."""
    if standing.state != "finished":
        return standing.current
    begun = [arm for arm in standing.arms if arm.place is not None]
    return next((arm for arm in begun if arm.arm == "federated"), standing.current)


def _compared(results: Results) -> Compared | None:
    comparison = results.comparison
    if comparison is None or not comparison.arms:
        return None
    quality = results.explanations
    outlined: dict[str, tuple[int, int]] = {}
    return Compared(
        headline=headline(comparison, main_arm(comparison)),
        metrics=(*METRICS.values(), "AUROC"),
        rows=results_table(comparison),
        notes=footnotes(comparison),
        identical=comparison.explainable_is_federated,
        gains=comparison.gains,
        seeds=len(comparison.seeds),
        quality=explanation_view(quality, outlined) if quality else None,
    )


def _tiles(
    arm: ArmState | None, histories: Mapping[ArmState, Sequence[Event]], results: Results
) -> tuple[Tile, ...]:
    """Test figures of a finished arm; else those on validation images so far."""
    if arm is None:
        return ()
    comparison = results.comparison
    if comparison is not None and arm.state == "finished" and arm.arm in comparison.arms:
        accuracy, *others = tiles(comparison, arm.arm)
        seeds = f", {len(comparison.seeds)} seeds" if len(comparison.seeds) > 1 else ""
        return (dataclasses.replace(accuracy, name=f"Test accuracy{seeds}"), *others)
    events = histories.get(arm, ())
    measured = measured_round(events, None)
    if measured is None or not measured["evaluation"]["images"]:
        return ()
    return validation_tiles(measured["evaluation"], measured)


def _arm_row(
    entry: ArmState,
    shown: ArmState | None,
    histories: Mapping[ArmState, Sequence[Event]],
    results: Results,
) -> ArmRow:
    measured = measured_round(histories.get(entry, ()), None)
    rows = results.comparison.rows if results.comparison else ()
    place = (entry.seed, entry.arm, "pooled", "accuracy")
    tested = next((row for row in rows if (row.seed, row.arm, row.scope, row.metric) == place), None)
    return ArmRow(
        state=entry,
        word=WORDS[entry.state] if entry.place else "To come",
        query=_query(entry) if entry.place else "",
        shown=entry == shown,
        done=min(1.0, entry.done / entry.planned) if entry.planned else 0.0,
        validation=_accuracy(measured),
        test=percent(tested.value) if tested else DASH,
    )


def _query(arm: ArmState) -> str:
    return urlencode({"seed": arm.seed, "arm": arm.arm})


def _said(standing: Standing, events: Sequence[Event]) -> str:
    current, rounds = standing.current, of_kind(events, "round")
    if current is None or standing.state != "running" or not rounds:
        return f"The study: {WORDS[standing.state].lower()}. {standing.reason}".strip()
    accuracy = _accuracy(rounds[-1])
    figure = "" if accuracy == DASH else f": validation accuracy {accuracy} %"
    return f"{current.label}, round {current.done:,} of {current.planned:,} is done{figure}."


def _accuracy(event: Event | None) -> str:
    """On validation images, percent; a dash where a round measured none."""
    evaluation = event.get("evaluation", {}) if event else {}
    return percent(evaluation["accuracy"]) if evaluation.get("images") else DASH


def _iso(seconds: float) -> str:
    if not seconds:
        return ""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
