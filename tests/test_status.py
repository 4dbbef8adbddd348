"""What a run folder's history says about where it stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedlens.errors import HistoryError
from fedlens.status import run_status

START = {"event": "start", "strategy": "fedavg", "rounds": 3, "hospitals": ["A", "B"], "classes": ["x", "y"]}


def _round(number: int, **more: Any) -> dict[str, Any]:
    return {"event": "round", "round": number, "loss": 1.0, "hospitals": {}, **more}


def _write(folder: Path, *events: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    (folder / "history.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


def test_a_run_under_way(tmp_path: Path) -> None:
    arm = _write(tmp_path / "seed-0" / "federated", START, _round(1, evaluation={"loss": 0.5}), _round(2))

    (status,) = run_status(tmp_path)

    assert (status.folder, status.state, status.rounds, status.hospitals) == (arm, "running", 3, ("A", "B"))
    assert status.last is not None and status.last["round"] == 2
    assert status.evaluated is not None and status.evaluated["round"] == 1
    assert status.as_dict()["rounds_done"] == 2


@pytest.mark.parametrize(("event", "state"), [("end", "finished"), ("failed", "failed")])
def test_a_run_that_ended(tmp_path: Path, event: str, state: str) -> None:
    _write(tmp_path / "run", START, _round(1), {"event": event, "reason": "patience", "round": 2})

    (status,) = run_status(tmp_path / "run")

    assert (status.state, status.reason, len(status.events)) == (state, "patience", 1)


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    _write(tmp_path / "run", START)

    (status,) = run_status(tmp_path)

    assert (status.state, status.last, status.evaluated) == ("running", None, None)


def test_every_arm_in_order(tmp_path: Path) -> None:
    for arm in ("local-B", "central", "federated"):
        _write(tmp_path / "seed-0" / arm, START)

    assert [status.folder.name for status in run_status(tmp_path)] == ["central", "federated", "local-B"]


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match=r"No history\.jsonl"):
        run_status(tmp_path)
