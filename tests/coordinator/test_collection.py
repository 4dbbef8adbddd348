from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.coordinator.fakes import initial_parameters, make_engine, make_settings

from fedlens.coordinator import plain
from fedlens.coordinator.collection import collect
from fedlens.coordinator.rounds import run_rounds
from fedlens.engines.engine import Reply
from fedlens.errors import NotEnoughHospitalsError, RoundError
from fedlens.progress import silent
from fedlens.protocol.messages import Update


class Scripted:
    """Brings just these replies."""

    hospitals = ("A", "B", "C")

    def __init__(self, *replies: Reply) -> None:
        self._replies = replies

    def exchange(
        self, names: Sequence[str], request: bytes, own: Mapping[str, bytes] | None = None
    ) -> Iterator[Reply]:
        yield from self._replies


def accept(hospital: str, content: bytes) -> dict[str, str]:
    if content == b"bad":
        raise RoundError("no good")
    return {"said": content.decode()}


def test_every_hospital_is_accounted_for() -> None:
    engine = Scripted(Reply("A", b"fine"), Reply("B", b"bad"))
    result = collect(engine, ["A", "B", "C"], b"request", accept, step="s", progress=silent)
    assert result.hospitals == {"A": {"said": "fine", "bytes_down": 0, "bytes_up": 0}}
    assert result.refused == {"B": "no good"}
    assert result.missing == {"C": "It did not answer."}
    with pytest.raises(NotEnoughHospitalsError, match=r"C: It did not answer\. B: no good"):
        result.require(2, "Round 1")


@pytest.mark.parametrize("second", ["A", "Z"])
def test_replies_nobody_asked_for_are_a_fault(second: str) -> None:
    engine = Scripted(Reply("A", b"fine"), Reply(second, b"fine"))
    with pytest.raises(RoundError, match=f"hospital {second} that nobody asked for"):
        collect(engine, ["A", "B"], b"", accept, step="s", progress=silent)


def test_progress_counts_replies() -> None:
    calls: list[tuple[str, int, int]] = []
    engine = Scripted(Reply("A", b"x"), Reply("B", None, "dead"))
    collect(engine, ["A", "B"], b"", accept, step="training", progress=lambda *call: calls.append(call))
    assert calls == [("training", 0, 2), ("training", 1, 2), ("training", 2, 2)]


def test_one_update_at_a_time_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[np.ndarray]] = []  # type: ignore[type-arg]
    inner = make_engine()
    most = 0

    class Watching:
        hospitals = inner.hospitals

        def exchange(
            self, names: Sequence[str], request: bytes, own: Mapping[str, bytes] | None = None
        ) -> Iterator[Reply]:
            nonlocal most
            for name in names:
                most = max(most, sum(reference() is not None for reference in alive))
                yield from inner.exchange([name], request)

    def remember(content: bytes, kind: type[Update]) -> Update:
        message = decode(content, kind)
        if kind is Update:
            alive.append(weakref.ref(message.delta["conv.weight"]))
        return message

    decode = plain.decode
    monkeypatch.setattr(plain, "decode", remember)
    run_rounds(make_settings(rounds=2), initial_parameters(), Watching(), tmp_path)
    assert len(alive) == 8
    assert most == 0


def test_one_reply_at_a_time_is_alive() -> None:
    class Traced(Reply):
        """A reply that can be referenced weakly."""

    born: list[weakref.ref[Reply]] = []

    class Making:
        hospitals = ("A", "B", "C")

        def exchange(
            self, names: Sequence[str], request: bytes, own: Mapping[str, bytes] | None = None
        ) -> Iterator[Reply]:
            for name in names:
                assert not [reference for reference in born if reference() is not None]
                yield self.make(name)

        def make(self, name: str) -> Reply:
            reply = Traced(name, b"x")
            born.append(weakref.ref(reply))
            return reply

    collect(Making(), ["A", "B", "C"], b"", accept, step="s", progress=silent)
    assert len(born) == 3
