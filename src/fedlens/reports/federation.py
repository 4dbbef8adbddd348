"""The page of a study that ran between machines, from its history.

No image, no prediction and no test figure came back from the hospitals; what the page shows is what
the coordinator saw. It never passes over a round that was run without a hospital.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedlens.errors import HistoryError
from fedlens.reports import figures
from fedlens.reports.absence import Event
from fedlens.reports.federation_tables import (
    accuracy_of,
    class_rows,
    confusion_of,
    explained_rounds,
    hospital_rows,
    kept_round,
    maps_by_round,
    of_kind,
    round_rows,
    validation_tiles,
    without_hospitals,
)
from fedlens.reports.figures import training_curve
from fedlens.reports.headline import range_text
from fedlens.reports.map_table import map_rows
from fedlens.reports.page import Picture, confusion_picture, flat, picture, render
from fedlens.reports.paper import percent
from fedlens.reports.sealing import sealing_notes

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
    def kept(self) -> Event:
        """The round whose network was kept: the best one where the study stops by patience, else the last.

        Raises:
            HistoryError: The history ends without a round.
        """
        kept = kept_round(self.events, patience=bool(self.study["training"]["patience"]))
        if kept is None:
            raise HistoryError("The history ends without a round.", fix="Put the file back as it was.")
        return kept

    @property
    def evaluation(self) -> Event:
        """What hospitals found of the kept network; a run's last round is always measured, as is its best."""
        evaluation: Event = self.kept["evaluation"]
        return evaluation

    @property
    def explained(self) -> list[Event]:
        """Rounds after which maps were measured, and found."""
        return explained_rounds(self.events)


def render_federation(report: FederationInput) -> str:
    """The page as HTML text; the same input gives the same page."""
    events = report.events
    measured = report.evaluation["images"] > 0
    explained = report.explained
    return render(
        "federation.html.j2",
        {
            "report": report,
            "headline": _headline(report),
            "tiles": validation_tiles(report.evaluation, report.kept) if measured else (),
            "subsets": list(without_hospitals(events)),
            "failures": len(of_kind(events, "failed")),
            "classes": class_rows(report.evaluation, report.start["classes"]) if measured else (),
            "pictures": _pictures(report, measured),
            "rows": list(round_rows(events, report.kept)),
            "hospitals": ()
            if report.start["sealed"]
            else list(hospital_rows(report.start["hospitals"], report.kept, report.evaluation)),
            "facts": list(_facts(report)),
            "explained": explained[-1] if explained else None,
            "maps": map_rows(explained[-1]["explanation"]["figures"]) if explained else (),
            "moved": list(maps_by_round(events)),
            "notes": sealing_notes(events),
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
    accuracy = accuracy_of(evaluation)
    chosen = "the round, and perhaps settings," if report.study["training"]["patience"] else "settings"
    return (
        f"{said}on the {_counted(images, 'validation image')} of {of} hospitals the network of round "
        f"{report.kept['round']:,} decides {percent(accuracy.mean)}{_NBSP}% rightly{range_text(accuracy)}, "
        f"which is no test: such images may have chosen {chosen} before."
    )


def _facts(report: FederationInput) -> Iterator[tuple[str, str]]:
    roster, segments = report.start["hospitals"], of_kind(report.events, "segment")
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
        pictures["confusion"] = confusion_picture(confusion_of(report.evaluation), report.start["classes"])
    return pictures


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
