"""Work that goes on while nobody asks for anything: judging waiting cases, learning what others look like."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator

from fedlens.errors import FedLensError

_log = logging.getLogger(__name__)

_PAUSE = 1.0
_PAUSE_AFTER_FAILURE = 10.0


class Background:
    """A thread that takes one small step after the other, and rests where there is none to take.

    Args:
        step: Does one piece of work; returns whether there may be more.
    """

    def __init__(self, step: Callable[[], bool]) -> None:
        self._step = step
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._holders = 0
        self._free = threading.Event()
        self._free.set()
        self._thread = threading.Thread(target=self._run, name="viewer-background", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the step that is being taken."""
        self._stopping.set()
        self._free.set()
        if self._thread.is_alive():
            self._thread.join()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Inside the block no new step begins; blocks of several threads may overlap."""
        with self._lock:
            self._holders += 1
            self._free.clear()
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if not self._holders:
                    self._free.set()

    def _run(self) -> None:
        while self._free.wait() and not self._stopping.is_set():
            try:
                pause = 0.0 if self._step() else _PAUSE
            except (FedLensError, OSError) as error:
                # A disk that is full now may have room again later. The whole message could name a patient's
                # file.
                _log.warning("Cases wait: %s", getattr(error, "strerror", None) or type(error).__name__)
                pause = _PAUSE_AFTER_FAILURE
            self._stopping.wait(pause)
