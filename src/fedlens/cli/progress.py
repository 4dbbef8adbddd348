"""Progress for people: bars on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_SECONDS = 5.0


class Shown(Protocol):
    """A progress callback that can also say something between the bars."""

    def __call__(self, step: str, done: int, total: int) -> None:
        """See :data:`fedlens.progress.Progress`."""
        ...

    def line(self, text: str) -> None:
        """Write one line that stays."""
        ...


@contextlib.contextmanager
def shown(console: Console | None = None) -> Iterator[Shown]:
    """A progress callback whose output goes to standard error, so that results can be piped.

    Args:
        console: Where to write; standard error by default.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield PlainLines(lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True))
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console) as bars:
        yield _Bars(bars)


class _Bars:
    """One bar for each step."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, step: str, done: int, total: int) -> None:
        if step not in self._tasks:
            self._tasks[step] = self._bars.add_task(step, total=total or None)
        self._bars.update(self._tasks[step], completed=done, total=total or None)

    def line(self, text: str) -> None:
        """Write one line above the bars."""
        self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)


class PlainLines:
    """One line when a step first starts and first ends, and at most one every few seconds besides.

    Args:
        write: Takes a line without its end.
        seconds: Shortest time between lines of one step.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        *,
        seconds: float = _SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._seconds = seconds
        self._clock = clock
        self._written: dict[str, float] = {}
        self._ended: set[str] = set()

    def __call__(self, step: str, done: int, total: int) -> None:
        now = self._clock()
        # A step that comes again every round ends often; only its first end is news.
        ends = 0 < total <= done and step not in self._ended
        if not ends and step in self._written and now - self._written[step] < self._seconds:
            return
        if ends:
            self._ended.add(step)
        self._written[step] = now
        self._write(f"{step}: {done:,} of {total:,}" if total else f"{step}: {done:,}")

    def line(self, text: str) -> None:
        """Write one line at once."""
        self._write(text)
