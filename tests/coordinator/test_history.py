from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedlens.coordinator.history import HISTORY_NAME, Event, History, read_history, without_seconds
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


def failed(number: int) -> Event:
    return {"event": "failed", "round": number, "reason": "Too few."}


def test_of_what_follows_the_kept_events_only_failures_stay(tmp_path: Path) -> None:
    history = History(tmp_path)
    events: list[Event] = [
        {"event": "start"},
        failed(1),
        {"event": "round", "round": 1},
        failed(2),
        {"event": "segment", "number": 3},
        {"event": "round", "round": 2},
        failed(3),
        {"event": "end", "rounds": 2},
    ]
    for event in events:
        history.append(event)

    kept = History(tmp_path, keep=3)

    left = [*events[:3], failed(2), failed(3)]
    assert list(kept.events) == left == read_history(tmp_path)
    # What is appended follows the failures, so that the next count of events includes them.
    kept.append({"event": "round", "round": 2})
    assert len(kept) == 6
    assert list(History(tmp_path, keep=6).events) == [*left, {"event": "round", "round": 2}]


def test_failures_stay_however_often_the_run_is_resumed(tmp_path: Path) -> None:
    History(tmp_path).append({"event": "start"})
    for number in range(3):
        history = History(tmp_path, keep=1)
        assert list(history.events) == [{"event": "start"}, *map(failed, range(number))]
        history.append({"event": "segment", "number": number})
        history.append(failed(number))
    assert read_history(tmp_path)[1:] == [
        failed(0),
        failed(1),
        {"event": "segment", "number": 2},
        failed(2),
    ]


def test_a_failure_that_was_torn_is_lost_and_the_others_stay(tmp_path: Path) -> None:
    write(tmp_path, 2)
    with (tmp_path / HISTORY_NAME).open("a") as stream:
        stream.write(f"{json.dumps(failed(3))}\n{json.dumps(failed(4))}")
    history = History(tmp_path, keep=1)
    assert [event["round"] for event in history.events] == [0, 3]
    history.append({"event": "round", "round": 1})
    assert [event["round"] for event in read_history(tmp_path)] == [0, 3, 1]


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
