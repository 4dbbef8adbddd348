"""Who is on the other end of a connection: random tokens in cookies, everything else kept here in memory."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_TOKEN_BYTES = 32
LONGEST = 12 * 3600.0
"""Seconds after which a session ends even where it is used all the time: a working day."""


@dataclass(frozen=True)
class Session:
    """One visitor's session.

    Attributes:
        key: What it is kept under; not the token, which only the visitor's cookie holds.
        csrf: Token that every form of this session sends back.
        reviewer: Account that logged in; empty where nobody did.
        mark: Of the account's password when they logged in, as ``Accounts.mark``.
    """

    key: str
    csrf: str
    reviewer: str = ""
    mark: str = ""


@dataclass
class _Use:
    session: Session
    began: float
    used: float


class Sessions:
    """Sessions that are open; all end with the process. Safe to call from several threads.

    Args:
        idle: Seconds without use after which a session ends.
        most: Sessions at a time; beyond them the one that was unused for longest ends.
        clock: Seconds that never go back.
    """

    def __init__(
        self, idle: float, *, most: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._idle = idle
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _Use] = OrderedDict()

    def open(self, reviewer: str = "", mark: str = "") -> tuple[str, Session]:
        """A new session and its token, 256 random bits for the visitor's cookie."""
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        session = Session(_key(token), secrets.token_urlsafe(_TOKEN_BYTES), reviewer, mark)
        now = self._clock()
        with self._lock:
            self._open[session.key] = _Use(session, now, now)
            if len(self._open) > self._most:
                self._open.popitem(last=False)
        return token, session

    def find(self, token: str, *, use: bool = True) -> Session | None:
        """The session of a token; None where it is unknown or has ended.

        Args:
            token: From a cookie.
            use: Whether this counts as use; a page that asks by itself does not keep a session open.
        """
        key, now = _key(token), self._clock()
        with self._lock:
            found = self._open.get(key)
            if found is None:
                return None
            if now - found.used > self._idle or now - found.began > LONGEST:
                del self._open[key]
                return None
            if use:
                found.used = now
                self._open.move_to_end(key)
            return found.session

    def close(self, session: Session) -> None:
        """End a session; one that has ended already stays so."""
        with self._lock:
            self._open.pop(session.key, None)


def _key(token: str) -> str:
    # A look-up by digest takes as long for every wrong token, however near it comes.
    return hashlib.sha256(token.encode()).hexdigest()
