from __future__ import annotations

import pytest

from fedlens.engines import LocalEngine
from fedlens.errors import RoundError, SettingsError


class Echo:
    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self._log = log

    def handle(self, request: bytes, own: bytes = b"") -> bytes:
        self._log.append(self.name)
        if request == b"fail":
            raise RoundError("What happened.", fix="What to do.")
        if request == b"fault":
            raise ZeroDivisionError
        return self.name.encode() + request


def engine(names: str = "BAC") -> tuple[LocalEngine, list[str]]:
    log: list[str] = []
    return LocalEngine(Echo(name, log) for name in names), log


def test_roster_keeps_its_order() -> None:
    assert engine()[0].hospitals == ("B", "A", "C")


def test_replies_come_in_the_order_asked() -> None:
    made, log = engine()
    replies = list(made.exchange(["C", "B"], b"!"))
    assert [(reply.hospital, reply.content, reply.error) for reply in replies] == [
        ("C", b"C!", ""),
        ("B", b"B!", ""),
    ]
    assert log == ["C", "B"]


def test_each_hospital_works_only_when_its_reply_is_asked_for() -> None:
    made, log = engine()
    replies = made.exchange(made.hospitals, b"!")
    assert log == []
    next(replies)
    assert log == ["B"]


def test_failing_hospital_does_not_stop_the_others() -> None:
    made, log = engine()
    replies = list(made.exchange(made.hospitals, b"fail"))
    assert all(reply.content is None and reply.error == "What happened. What to do." for reply in replies)
    assert log == ["B", "A", "C"]


def test_fault_in_the_program_is_not_hidden() -> None:
    made, _ = engine()
    with pytest.raises(ZeroDivisionError):
        list(made.exchange(made.hospitals, b"fault"))


@pytest.mark.parametrize("names", ["", "ABA"])
def test_roster_needs_distinct_names(names: str) -> None:
    with pytest.raises(SettingsError, match="roster"):
        engine(names)
