"""The audit log's chain."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlens.viewer.audit import AuditLog


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "viewer" / "audit.jsonl"


def filled(path: Path, lines: int = 5) -> AuditLog:
    log = AuditLog(path)
    for number in range(lines):
        log.record("Dr Ä\n", "view case", f"case-{number}", "agree")
    return log


def test_lines_say_who_did_what_and_when(path: Path) -> None:
    log = filled(path, 2)
    assert log.verify() == 0
    first, second = map(json.loads, path.read_text().splitlines())
    assert first["actor"] == "Dr Ä\n" and first["action"] == "view case" and first["case"] == "case-0"
    assert first["detail"] == "agree" and first["time"].endswith("+00:00") and first["before"] == ""
    assert len(second["before"]) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_empty_log_is_whole(path: Path) -> None:
    assert AuditLog(path).verify() == 0


def test_it_goes_on_after_opening_again(path: Path) -> None:
    filled(path, 2)
    log = filled(path, 3)
    assert log.verify() == 0 and len(path.read_text().splitlines()) == 5


def test_lines_longer_than_a_block_are_followed(path: Path) -> None:
    log = AuditLog(path)
    for _ in range(3):
        log.record("x" * 200_000, "list")
    assert log.verify() == 0


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        (lambda lines: [*lines[:2], lines[2].replace(b"case-2", b"case-9"), *lines[3:]], 4),
        (lambda lines: [*lines[:1], *lines[2:]], 2),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], 2),
        (lambda lines: [*lines[:3], lines[1], *lines[3:]], 4),
        (lambda lines: lines[1:], 1),
        (lambda lines: [*lines[:4], b"[1]\n"], 5),
        (lambda lines: [*lines[:4], lines[4][:-9]], 5),
    ],
)
def test_the_first_broken_line_is_named(path: Path, change: object, broken: int) -> None:
    log = filled(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(change(lines)))  # type: ignore[operator]
    assert log.verify() == broken


def test_a_torn_line_stays_and_is_named(path: Path) -> None:
    log = filled(path, 3)
    with path.open("rb+") as stream:
        stream.truncate(path.stat().st_size - 20)
    log.record("Dr B", "list")
    lines = path.read_bytes().splitlines()
    assert len(lines) == 4 and json.loads(lines[3])["actor"] == "Dr B"
    assert log.verify() == 3


def test_a_full_disk_is_told_and_leaves_no_half_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = filled(path, 2)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", full)
    with pytest.raises(OSError, match="No space"):
        log.record("Dr B", "list")
    monkeypatch.undo()
    log.record("Dr C", "list")
    assert log.verify() == 0 and b"Dr B" not in path.read_bytes()


def test_threads_and_logs_of_the_same_file_take_turns(path: Path) -> None:
    logs = [AuditLog(path) for _ in range(3)]
    with ThreadPoolExecutor(6) as workers:
        list(workers.map(lambda number: logs[number % 3].record(f"Dr {number}", "list"), range(60)))
    assert logs[0].verify() == 0 and len(path.read_bytes().splitlines()) == 60


@given(texts=st.lists(st.text(), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_no_text_makes_a_line_of_its_own(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("log") / "audit.jsonl"
    log = AuditLog(path)
    for text in texts:
        log.record(text, "log in", detail=text)
    assert log.verify() == 0
    assert [json.loads(line)["actor"] for line in path.read_bytes().split(b"\n")[:-1]] == texts
