"""The history of a run: one JSON line an event, on disk before the coordinator goes on.

Events are ``start``, ``segment``, ``round``, ``failed`` (a round that came to nothing, with the reason),
``decision`` and ``end``. Everything that a clock decides stands under a key ``seconds``, or ``cost`` where it
is in forward passes, so that histories of two runs of one study are equal but for those
(:func:`without_seconds`).

A round after which maps were measured has an ``explanation``: ``split``, ``method``, ``measures``, ``images``
(how many were explained), ``figures`` (:func:`~fedlens.metrics.explanation_totals.figures` of all hospitals
together), who took part and who did not (``hospitals``, ``missing``, ``refused``), ``told`` (who heard of the
totals, with its own ``missing`` and ``refused``), and ``seconds``. In the clear also ``by_hospital``, the
figures of each; sealed, ``sealing``.

``decision`` says of which ``round``'s network advice was fitted across hospitals: who took part in either
step (``basis`` and ``scores``), ``temperature``, ``training_images`` and ``validation_images``; or in
``reason``, which is empty otherwise, why there is none.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from fedlens.errors import HistoryError
from fedlens.files import sync_folder, write_text

HISTORY_NAME = "history.jsonl"

Event = dict[str, Any]


class History:
    """Events of one run folder, in memory and in ``history.jsonl`` alike.

    Args:
        folder: Run folder.
        keep: Events to keep of an earlier, interrupted run; of what follows them only failures are kept,
            since the rounds that were begun are repeated.

    Raises:
        HistoryError: The file holds fewer whole events than that.
    """

    def __init__(self, folder: Path, *, keep: int = 0) -> None:
        self._path = folder / HISTORY_NAME
        folder.mkdir(parents=True, exist_ok=True)
        self._path.touch()
        sync_folder(folder)
        events = read_history(folder)
        if len(events) < keep:
            raise HistoryError(
                f"{self._path} holds {len(events)} whole events.",
                why=f"The last checkpoint was written after {keep}.",
                fix="Put the file back, or choose another output.",
            )
        failures = [event for event in events[keep:] if event["event"] == "failed"]
        self._events = events[:keep] + failures
        write_text(self._path, "".join(_line(event) for event in self._events))

    def __len__(self) -> int:
        return len(self._events)

    @property
    def events(self) -> tuple[Event, ...]:
        """All events so far."""
        return tuple(self._events)

    def append(self, event: Event) -> None:
        """Write one event and wait until it is on disk."""
        line = _line(event)
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
        # As a reader will see it: tuples have become lists.
        self._events.append(json.loads(line))


def _line(event: Event) -> str:
    return json.dumps(event, allow_nan=False) + "\n"


def read_history(folder: Path) -> list[Event]:
    """All whole events of a run folder; a last line without its end is a torn write and left out.

    Raises:
        HistoryError: No history, or a line in it that is not an event.
    """
    path = folder / HISTORY_NAME
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError as error:
        raise HistoryError(f"No history {path}.", fix="Give the output folder of a run.") from error
    events = []
    for number, line in enumerate(lines, start=1):
        try:
            event = json.loads(line)
        except ValueError as error:
            raise HistoryError(
                f"{path}, line {number} is not an event: {error}.", fix="Put the file back as it was."
            ) from error
        events.append(event)
    return events


def without_seconds(event: Any) -> Any:
    """A copy of an event without what a clock decided."""
    if isinstance(event, dict):
        timed = ("seconds", "cost")
        return {name: without_seconds(value) for name, value in event.items() if name not in timed}
    if isinstance(event, list):
        return [without_seconds(value) for value in event]
    return event
