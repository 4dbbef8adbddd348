"""Seals on the study's page: over whom sums were opened, and who helped to open them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fedlens.coordinator.deciding import DECISION, advice_said
from fedlens.reports.absence import Event, absences
from fedlens.reports.federation_tables import of_kind
from fedlens.reports.sealing import sealing_notes

_UNMASKING = "At unmasking"
_STEPS = {"evaluation": "Validation", "explanation": "Explanations"}


@dataclass(frozen=True)
class Opened:
    """One opened sum of the last round.

    Attributes:
        step: What was summed.
        over: Hospitals in the sum.
        unmasked: Those whose shares opened it.
        dropped: Those that fell silent after the keys were dealt; their masks were taken out.
        asked: How many hospitals were asked.
    """

    step: str
    over: tuple[str, ...]
    unmasked: tuple[str, ...]
    dropped: tuple[str, ...]
    asked: int


@dataclass(frozen=True)
class Seals:
    """How updates travelled.

    Attributes:
        sealed: Whether the coordinator reads sums only.
        facts: Names and values.
        number: The last round; 0 before the first.
        opened: Its sums, in order.
        notes: Sentences on all rounds, and on advice that was fitted across hospitals.
    """

    sealed: bool
    facts: tuple[tuple[str, str], ...]
    number: int
    opened: tuple[Opened, ...]
    notes: tuple[str, ...]


def seals_of(events: Sequence[Event]) -> Seals:
    """What the history says of sealing."""
    sealed = bool(events[0]["sealed"])
    rounds = of_kind(events, "round")
    last = rounds[-1] if rounds else None
    advice = advice_said([dict(event) for event in of_kind(events, DECISION)])
    return Seals(
        sealed=sealed,
        facts=tuple(_facts(events)) if sealed else (),
        number=last["round"] if last else 0,
        opened=tuple(_opened(last)) if sealed and last else (),
        notes=tuple(filter(None, (*sealing_notes(events), advice))),
    )


def _facts(events: Sequence[Event]) -> Iterator[tuple[str, str]]:
    segments, roster = of_kind(events, "segment"), events[0]["hospitals"]
    if segments:
        yield "Fewest hospitals in an opened sum", f"{segments[-1]['threshold']:,} of {len(roster):,}"
        yield "Roster fingerprint", segments[-1]["roster"]
        yield "Starts of the coordinator", f"{len(segments):,}"


def _opened(event: Event) -> Iterator[Opened]:
    steps = [("Training", event), *((said, event[key]) for key, said in _STEPS.items() if key in event)]
    for name, step in steps:
        over = tuple(step["hospitals"])
        silent = {away.hospital for away in absences(step) if away.reason.startswith(_UNMASKING)}
        yield Opened(
            step=name,
            over=over,
            unmasked=tuple(hospital for hospital in over if hospital not in silent),
            dropped=tuple(step["sealing"]["dropped"]),
            asked=step["sealing"]["participants"],
        )
