from __future__ import annotations

import copy
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from fedlens.errors import ProtocolError
from fedlens.protocol.codec import digest
from fedlens.protocol.messages import Stamp
from fedlens.protocol.sealed_hospital import HospitalSeal, Ready
from fedlens.protocol.sealed_sum import SealedSum
from fedlens.protocol.session import Session

from . import lies
from .federation import Federation

LIES = sorted(module.name for module in pkgutil.iter_modules(lies.__path__))
# A verification that is refused may have opened boxes; what it found in them is held against commitments.
BY_VERIFYING = {"received"}
# A plan that was found in order stays, though its numbers could not be sealed: it can be sealed again.
BY_A_VERIFIED_PLAN = {"received", "plan", "plan_digest", "model"}
# A lie that comes out only when the sum is opened: by then hospitals have answered, honestly.
BY_OPENING = {"chosen", "opened"}
# A refused request for shares leaves secrets in `encapsulated`, which the session shares with its copy.

State = dict[str, Any]


def state_of(session: Session | None) -> State | None:
    """All that a session holds, copied as far as it can change. A plan is known by itself and its content."""
    if session is None:
        return None
    held = {entry.name: getattr(session, entry.name) for entry in fields(session)}
    state = {name: dict(value) if isinstance(value, Mapping) else value for name, value in held.items()}
    return {**state, "plan": session.plan and (id(session.plan), digest(session.plan))}


def changed(session: Session | None, before: State | None) -> set[str]:
    """Which fields of a session are not as they were."""
    now = state_of(session)
    if now is None or before is None:
        return set() if now is before else {"session"}
    return {name for name, value in now.items() if value != before[name]}


def state_of_sum(current: SealedSum) -> State:
    """All that the coordinator holds of a sum."""
    fixed = {"_roster", "_identity", "_plan", "_running"}
    state = {name: copy.deepcopy(value) for name, value in vars(current).items() if name not in fixed}
    running = current._running and (current._running._values.tobytes(), current._running._totals.tobytes())
    return {**state, "plan": id(current._plan), "running": running}


class Watch:
    """What hospitals and the coordinator's sums held before an act, and who verified a plan in it."""

    def __init__(self, federation: Federation, sums: list[SealedSum], patch: pytest.MonkeyPatch) -> None:
        self.began: set[str] = set()
        self.verified: set[str] = set()
        self._hospitals = dict(federation.hospitals)
        self._held = {
            name: (seal.ledger, seal._current, seal._next) for name, seal in self._hospitals.items()
        }
        self._states = {
            name: (state_of(seal._current), state_of(seal._next)) for name, seal in self._hospitals.items()
        }
        self._sums = [(current, state_of_sum(current)) for current in sums]
        patch.setattr(HospitalSeal, "verify", self._watched(HospitalSeal.verify))

    def _watched(self, verify: Callable[..., Ready]) -> Callable[..., Ready]:
        def watched(seal: HospitalSeal, *arguments: Any, **named: Any) -> Ready:
            self.began.add(seal.name)
            ready = verify(seal, *arguments, **named)
            self.verified.add(seal.name)
            return ready

        return watched

    def check(self, *, ends_the_sum: bool) -> None:
        """Nothing but what is said above is other than it was."""
        for name, seal in self._hospitals.items():
            ledger, current, following = self._held[name]
            assert seal._current is current and seal._next is following
            assert seal.ledger is ledger or ends_the_sum
            of_current, of_next = (
                changed(session, before)
                for session, before in zip((current, following), self._states[name], strict=True)
            )
            assert of_current <= (BY_OPENING if ends_the_sum else set())
            assert of_next <= self._by_verifying(name)
            if "received" in of_next:
                before = self._states[name][1]
                assert following is not None and before is not None
                assert following.received.items() > before["received"].items()
        if not ends_the_sum:
            assert all(state_of_sum(current) == before for current, before in self._sums)

    def _by_verifying(self, name: str) -> set[str]:
        if name in self.verified:
            return BY_A_VERIFIED_PLAN
        return BY_VERIFYING if name in self.began else set()


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_refused_with_its_reason_and_changes_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lie = importlib.import_module(f"{lies.__name__}.{name}")
    sums: list[SealedSum] = []
    begin = Federation.begin

    def watched(federation: Federation, stamp: Stamp | None = None) -> SealedSum:
        sums.append(begin(federation, stamp))
        return sums[-1]

    monkeypatch.setattr(Federation, "begin", watched)
    federation = Federation()
    act = lie.tell(federation)
    watch = Watch(federation, sums, monkeypatch)

    with pytest.raises(ProtocolError, match=lie.REASON):
        act()

    watch.check(ends_the_sum=getattr(lie, "ENDS_THE_SUM", False))


def test_every_lie_says_what_it_is() -> None:
    assert len(LIES) >= 65
    assert all(importlib.import_module(f"{lies.__name__}.{name}").__doc__ for name in LIES)


def test_without_a_lie_the_sum_is_exact() -> None:
    federation = Federation()
    current = federation.keyed()
    federation.uploaded(current)
    opened = federation.open(current)
    step = 4.0 / 2**15
    assert np.abs(opened.values - federation.exact("ABCD")).max() <= 4 * step
