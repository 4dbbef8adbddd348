from __future__ import annotations

from pathlib import Path

import pytest

from fedlens.coordinator.history import HISTORY_NAME, History, read_history, without_seconds
from fedlens.errors import HistoryError


def write(folder: Path, count: int = 4) -> None:
    history = History(folder)
    for number in range(count):
        history.append({"event": "round", "round": number, "names": ("A", "B")})


def test_events_are_read_as_written(tmp_path: Path) -> None:
    history = History(tmp_path / "new" / "folder")
    history.append({"event": "start", "names": ("A", "ß")})
    assert history.events == ({"event": "start", "names": ["A", "ß"]},)
    assert read_history(tmp_path / "new" / "folder") == list(history.events)


def test_reopening_cuts_off_what_follows(tmp_path: Path) -> None:
    write(tmp_path)
    whole = (tmp_path / HISTORY_NAME).read_bytes().split(b"\n")
    history = History(tmp_path, keep=2)
    assert len(history) == 2
    assert (tmp_path / HISTORY_NAME).read_bytes() == b"\n".join([*whole[:2], b""])
    history.append({"event": "round", "round": 9})
    assert [event["round"] for event in read_history(tmp_path)] == [0, 1, 9]


@pytest.mark.parametrize("torn", ['{"event": "rou', "{", '{"event": "round"}'])
def test_torn_last_line_is_left_out_and_removed(torn: str, tmp_path: Path) -> None:
    write(tmp_path)
    whole = (tmp_path / HISTORY_NAME).read_text()
    (tmp_path / HISTORY_NAME).write_text(whole + torn)
    assert len(read_history(tmp_path)) == 4
    assert len(History(tmp_path, keep=4)) == 4
    assert (tmp_path / HISTORY_NAME).read_text() == whole


def test_lost_events_are_refused(tmp_path: Path) -> None:
    write(tmp_path, 3)
    before = (tmp_path / HISTORY_NAME).read_bytes()
    with pytest.raises(HistoryError, match="3 whole events"):
        History(tmp_path, keep=4)
    assert (tmp_path / HISTORY_NAME).read_bytes() == before


def test_damaged_line_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    lines = (tmp_path / HISTORY_NAME).read_text().splitlines()
    (tmp_path / HISTORY_NAME).write_text("\n".join([lines[0], lines[1][:9], *lines[2:], ""]))
    with pytest.raises(HistoryError, match="line 2"):
        read_history(tmp_path)


def test_missing_history_says_so(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="No history"):
        read_history(tmp_path)


def test_not_a_number_never_enters(tmp_path: Path) -> None:
    history = History(tmp_path)
    with pytest.raises(ValueError):
        history.append({"loss": float("nan")})
    assert read_history(tmp_path) == [] and len(history) == 0


def test_only_seconds_are_left_out() -> None:
    event = {
        "round": 1,
        "seconds": {"a": 1},
        "hospitals": {"A": {"seconds": 2.0, "loss": [1, {"seconds": 1}]}},
    }
    assert without_seconds(event) == {"round": 1, "hospitals": {"A": {"loss": [1, {}]}}}
    assert "seconds" in event
