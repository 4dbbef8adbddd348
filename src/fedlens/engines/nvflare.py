"""The engine between machines: messages travel over NVIDIA FLARE's connections to each hospital's relay.

Every message is an errand. The hospital's relay takes it, says how far the work is whenever asked, and
keeps the answer until it was fetched; so a connection may break and come back in the middle of a long
training. A hospital that stays out of reach is a suspect from then on: it is asked again only after
a ping came back, so that a dead hospital costs its grace once and not at every step.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from fedlens.deployment.envelope import Ask, check_answer, content_digest
from fedlens.deployment.headers import (
    DONE,
    ERRAND,
    ERROR,
    FAILED,
    HERE,
    OWN,
    PERCENT,
    SIGNATURE,
    STATE,
    STEP,
    STUDY,
    WAIT,
    WORKING,
)
from fedlens.deployment.notices import one_line
from fedlens.engines.engine import Reply
from fedlens.errors import ProtocolError, StoppedError
from fedlens.protocol.roster import Identity, Roster
from fedlens.study import NetworkSettings

_WAIT_SECONDS = 2.0
"""How long a relay holds a call before it says that the work goes on."""
_CALL_SECONDS = 15.0
"""How long one call may take; a call that was lost with its connection is made again after that."""
_SLOWEST = 1e6
"""Bytes a second of the slowest connection that a large network is still sent over."""
_PING_SECONDS = 3.0
_PAUSE_SECONDS = 0.5
_MOST_STEP = 40

Headers = dict[str, Any]
Told = Callable[[str, str, int], None]
"""Called with a hospital, what it is at, and how many percent of that are done."""


class Carrier(Protocol):
    """One call to one hospital's relay."""

    def call(
        self, hospital: str, topic: str, headers: Headers, content: bytes, seconds: float
    ) -> tuple[Headers, bytes] | None:
        """The relay's headers and content; None where it cannot be reached or is silent."""
        ...


def untold(hospital: str, step: str, percent: int) -> None:
    """Nobody is told."""


class FlareEngine:
    """Sends each request to its hospitals at once, and hands on replies in the order asked for.

    Args:
        roster: Hospitals and whose signatures count.
        identity: The coordinator's, which signs every message.
        study: Digest of the study's settings.
        carrier: Calls the relays.
        settings: How patient to be.
        told: Told how far each hospital is.
        stop: Once set, every exchange ends with a :class:`~fedlens.errors.StoppedError`.
    """

    def __init__(
        self,
        roster: Roster,
        identity: Identity,
        study: str,
        carrier: Carrier,
        settings: NetworkSettings,
        *,
        told: Told = untold,
        stop: threading.Event | None = None,
    ) -> None:
        self._roster = roster
        self._identity = identity
        self._study = study
        self._carrier = carrier
        self._settings = settings
        self._told = told
        self._stop = stop or threading.Event()
        self._suspects: set[str] = set()

    @property
    def hospitals(self) -> tuple[str, ...]:
        """Names in roster order."""
        return tuple(self._roster.members)

    def reachable(self) -> tuple[str, ...]:
        """Hospitals whose relay answers a ping now, in roster order."""
        with ThreadPoolExecutor(max_workers=len(self.hospitals)) as pool:
            here = list(pool.map(self._ping, self.hospitals))
        self._suspects = {name for name, there in zip(self.hospitals, here, strict=True) if not there}
        return tuple(name for name in self.hospitals if name not in self._suspects)

    def exchange(
        self, names: Sequence[str], request: bytes, own: Mapping[str, bytes] | None = None
    ) -> Iterator[Reply]:
        """See :meth:`fedlens.engines.engine.Engine.exchange`.

        Raises:
            StoppedError: The study was stopped.
        """
        digest = content_digest(request)
        beside = own or {}
        given_up = threading.Event()
        with ThreadPoolExecutor(max_workers=max(1, len(names))) as pool:
            waiting = [
                pool.submit(self._ask, name, request, digest, beside.get(name, b""), given_up)
                for name in names
            ]
            try:
                # Popped and deleted, so that a reply is gone from here once it was handed on.
                while waiting:
                    reply = waiting.pop(0).result()
                    self._refuse_stopped()
                    yield reply
                    del reply
            finally:
                # Whoever takes no more replies must not be held until the slowest hospital is done.
                given_up.set()

    def _ask(self, name: str, request: bytes, digest: str, own: bytes, given_up: threading.Event) -> Reply:
        """One errand from the asking to its answer, or to why there is none."""
        if name in self._suspects and not self._ping(name):
            return Reply(name, None, "It is still out of reach.")
        self._suspects.discard(name)
        errand = uuid.uuid4().hex
        ask = Ask(errand, self._study, name, digest, content_digest(own))
        signature = ask.signed_by(self._identity).hex()
        headers = {ERRAND: errand, STUDY: self._study, SIGNATURE: signature, OWN: len(own)}
        topic, content = "ask", request + own if own else request
        patience = min(_CALL_SECONDS, _WAIT_SECONDS + max(_PING_SECONDS, self._settings.grace))
        # An answer is about as large as its request.
        seconds = max(patience, len(content) / _SLOWEST)
        began = heard = time.monotonic()
        while not (self._stop.is_set() or given_up.is_set()):
            answer = self._carrier.call(name, topic, {**headers, WAIT: _WAIT_SECONDS}, content, seconds)
            now = time.monotonic()
            if answer is None:
                if now - heard > self._settings.grace:
                    self._suspects.add(name)
                    return Reply(name, None, f"It was out of reach for {now - heard:.0f} seconds.")
                self._stop.wait(_PAUSE_SECONDS)
                continue
            heard = now
            said, replied = answer
            if said.get(STATE) != WORKING:
                return self._finished(name, errand, said, replied)
            self._told(name, *_progress(said))
            if now - began > self._settings.deadline:
                self._carrier.call(name, "cancel", headers, b"", _PING_SECONDS)
                return Reply(name, None, f"It was not done after {now - began:.0f} seconds.")
            # From here on only the answer is fetched: the request itself has arrived.
            topic, content = "fetch", b""
        self._carrier.call(name, "cancel", headers, b"", _PING_SECONDS)
        return Reply(name, None, "The study was stopped.")

    def _finished(self, name: str, errand: str, said: Headers, content: bytes) -> Reply:
        """A reply that the hospital signed, or its signed reason; a relay's own trouble is not signed."""
        if said.get(STATE) not in (DONE, FAILED):
            return Reply(name, None, "It was started again and no longer knows what it was asked.")
        failed = said.get(STATE) == FAILED
        reason = str(said.get(ERROR, ""))
        if failed and SIGNATURE not in said:
            return Reply(name, None, one_line(reason))
        try:
            signature = bytes.fromhex(str(said.get(SIGNATURE, "")))
            digest = content_digest(reason.encode() if failed else content)
            check_answer(self._roster, signature, name, errand, failed, digest)
        except (ValueError, ProtocolError):
            return Reply(name, None, "Its answer is not signed with its key; it was not looked at.")
        return Reply(name, None if failed else content, one_line(reason))

    def _ping(self, name: str) -> bool:
        answer = self._carrier.call(name, "ping", {}, b"", _PING_SECONDS)
        return answer is not None and answer[0].get(STATE) == HERE

    def _refuse_stopped(self) -> None:
        if self._stop.is_set():
            raise StoppedError("The study was stopped.", fix="Go on with: fedlens resume")


def _progress(said: Headers) -> tuple[str, int]:
    """Step and percent as a relay tells them; nobody signs these, so they are text and number at most."""
    step = "".join(letter for letter in str(said.get(STEP, ""))[:_MOST_STEP] if letter.isprintable())
    percent = said.get(PERCENT)
    return step, min(100, max(0, percent)) if isinstance(percent, int) else 0
