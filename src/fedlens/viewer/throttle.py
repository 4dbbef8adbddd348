"""Slowing down whoever tries too often."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_MOST_KEYS = 10_000
_LONGEST_WAIT = 900.0
_FORGOTTEN_AFTER = 3600.0


@dataclass(frozen=True)
class _Tries:
    count: int
    last: float


class Backoff:
    """Waiting times that double with each failure. Safe to call from several threads.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tries: OrderedDict[str, _Tries] = OrderedDict()

    def attempt(self, free: Mapping[str, int]) -> float:
        """Begin a try. It counts as a failure until :meth:`succeeded`, as many may be begun at once.

        Args:
            free: For each key that the try counts under, failures that cost nothing.

        Returns:
            0 where it may go on; else the seconds until it may, and nothing is counted.
        """
        now = self._clock()
        with self._lock:
            wait = max(self._wait(key, allowed, now) for key, allowed in free.items())
            if wait:
                return wait
            for key in free:
                known = self._known(key, now)
                self._tries[key] = _Tries(known.count + 1, now)
                self._tries.move_to_end(key)
            while len(self._tries) > _MOST_KEYS:
                self._tries.popitem(last=False)
        return 0.0

    def succeeded(self, free: Mapping[str, int], anew: str) -> None:
        """Take a try back that was none too many.

        Args:
            free: As for :meth:`attempt`.
            anew: The key whose earlier failures are forgotten, too.
        """
        with self._lock:
            for key in free:
                known = self._tries.get(key)
                if known is not None:
                    self._tries[key] = _Tries(known.count - 1, known.last)
            self._tries.pop(anew, None)

    def _known(self, key: str, now: float) -> _Tries:
        known = self._tries.get(key, _Tries(0, now))
        return known if now - known.last <= _FORGOTTEN_AFTER else _Tries(0, now)

    def _wait(self, key: str, free: int, now: float) -> float:
        known = self._known(key, now)
        if known.count < free:
            return 0.0
        # The exponent is bounded, as 2.0 to the power of thousands is no number.
        pause = min(_LONGEST_WAIT, 2.0 ** min(known.count - free, 10))
        return max(0.0, known.last + pause - now)


class Allowance:
    """A number of requests at once, and so many more each second. Safe to call from several threads.

    Args:
        at_once: Requests that a fresh key may make without waiting.
        each_second: Requests by which that is filled up again.
        clock: Seconds that never go back.
    """

    def __init__(
        self, at_once: float, each_second: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._at_once = at_once
        self._each_second = each_second
        self._clock = clock
        self._lock = threading.Lock()
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> bool:
        """Whether this key may make one more request now."""
        now = self._clock()
        with self._lock:
            left, since = self._left.pop(key, (self._at_once, now))
            left = min(self._at_once, left + (now - since) * self._each_second)
            granted = left >= 1
            self._left[key] = (left - 1 if granted else left, now)
            if len(self._left) > _MOST_KEYS:
                self._left.popitem(last=False)
            return granted
