"""Where a run stands, read from its history alone, while it runs or afterwards."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedlens.coordinator.history import HISTORY_NAME, Event, read_history
from fedlens.errors import HistoryError
from fedlens.home_explanations import Explained, read_homes


@dataclass(frozen=True)
class RunStatus:
    """One federated run's progress.

    Attributes:
        folder: Where its ``history.jsonl`` lies.
        state: ``running`` (or interrupted: the file cannot tell), ``finished`` or ``failed``.
        reason: Why it ended; empty while it has not.
        strategy: How updates are put together.
        sealed: Whether the coordinator sees sums only.
        rounds: Rounds planned.
        hospitals: The roster.
        events: One for each finished round, as in the history.
        failures: One for each time that a round came to nothing, as in the history.
        homes: What hospitals keep at home of their measured maps, by name, where they are on this machine.
    """

    folder: Path
    state: str
    reason: str
    strategy: str
    sealed: bool
    rounds: int
    hospitals: tuple[str, ...]
    events: tuple[Event, ...]
    failures: tuple[Event, ...] = ()
    homes: Mapping[str, Explained] = field(default_factory=dict)

    @property
    def last(self) -> Event | None:
        """The last finished round."""
        return self.events[-1] if self.events else None

    @property
    def evaluated(self) -> Event | None:
        """The last round whose model was measured."""
        return next((event for event in reversed(self.events) if "evaluation" in event), None)

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "folder": str(self.folder),
            "state": self.state,
            "reason": self.reason,
            "strategy": self.strategy,
            "sealed": self.sealed,
            "rounds": self.rounds,
            "rounds_done": len(self.events),
            "hospitals": list(self.hospitals),
            "history": list(self.events),
            "failures": list(self.failures),
            "explanations_at_home": dict(self.homes),
        }


def run_status(run: Path) -> list[RunStatus]:
    """The status of every federated run in a run folder, in order of their paths.

    Args:
        run: A run or comparison folder, or one run's own folder.

    Raises:
        HistoryError: There is no history in it, or one that cannot be read.
    """
    found = [_status(folder) for folder in _folders(run)]
    if not found:
        raise HistoryError(
            f"No {HISTORY_NAME} in {run} or below.",
            fix="Give the output folder of fedlens run or fedlens compare.",
        )
    return found


def _folders(run: Path) -> Iterator[Path]:
    return (path.parent for path in sorted(run.rglob(HISTORY_NAME)))


def _status(folder: Path) -> RunStatus:
    found = status_of(folder, read_history(folder))
    return dataclasses.replace(found, homes=read_homes(folder))


def status_of(folder: Path, events: Sequence[Event]) -> RunStatus:
    """The status that a history's events tell.

    Args:
        folder: Where the history lies, here or elsewhere.
        events: All of them, in order.
    """
    start = next((event for event in events if event["event"] == "start"), {})
    last = events[-1] if events else {}
    state = {"end": "finished", "failed": "failed"}.get(last.get("event", ""), "running")
    return RunStatus(
        folder=folder,
        state=state,
        reason=str(last.get("reason", "")),
        strategy=str(start.get("strategy", "")),
        sealed=bool(start.get("sealed", False)),
        rounds=int(start.get("rounds", 0)),
        hospitals=tuple(start.get("hospitals", ())),
        events=tuple(event for event in events if event["event"] == "round"),
        failures=tuple(event for event in events if event["event"] == "failed"),
    )
