from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tests.coordinator.fakes import initial_parameters, make_engine, make_settings
from tests.coordinator.killed_run import POINTS, settings

from fedlens.coordinator.checkpoints import latest
from fedlens.coordinator.history import HISTORY_NAME, read_history, without_seconds
from fedlens.coordinator.rounds import RoundsResult, run_rounds
from fedlens.errors import HistoryError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> RoundsResult:
    folder = tmp_path_factory.mktemp("whole")
    return run_rounds(settings(), initial_parameters(), make_engine(folder / "hospitals"), folder / "run")


def start_child(folder: Path, point: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.coordinator.killed_run", str(folder), point], cwd=ROOT
    )


def resume(folder: Path) -> RoundsResult:
    return run_rounds(
        settings(), initial_parameters(), make_engine(folder / "hospitals"), folder / "run", resume=True
    )


def assert_same(result: RoundsResult, expected: RoundsResult, folder: Path) -> None:
    for name, array in expected.parameters.items():
        assert result.parameters[name].tobytes() == array.tobytes()
        assert result.best_parameters[name].tobytes() == expected.best_parameters[name].tobytes()
    assert (result.best_round, result.best_loss) == (expected.best_round, expected.best_loss)
    assert without_seconds(list(result.history)) == without_seconds(list(expected.history))
    assert read_history(folder / "run") == list(result.history)
    assert not list((folder / "run").rglob("*.part"))


@pytest.mark.parametrize("point", [point for point in POINTS if point != "never"])
def test_killed_run_resumes_to_the_bit(point: str, tmp_path: Path, uninterrupted: RoundsResult) -> None:
    child = start_child(tmp_path, point)
    assert child.wait(60) == -9
    done = latest(tmp_path / "run")
    assert point == "first checkpoint" or (done and 0 < int(done.stem[-4:]) < 6)
    assert_same(resume(tmp_path), uninterrupted, tmp_path)


@pytest.mark.parametrize("seed", [0, 1])
def test_run_killed_at_any_moment_resumes_to_the_bit(
    seed: int, tmp_path: Path, uninterrupted: RoundsResult
) -> None:
    child = start_child(tmp_path, "slow")
    history = tmp_path / "run" / HISTORY_NAME
    while not history.exists():
        assert child.poll() is None
        time.sleep(0.002)
    time.sleep(np.random.default_rng(seed).uniform(0, 0.25))
    child.kill()
    assert child.wait(60) == -9
    assert_same(resume(tmp_path), uninterrupted, tmp_path)


def test_resuming_a_finished_run_asks_no_hospital(tmp_path: Path, uninterrupted: RoundsResult) -> None:
    first = run_rounds(
        settings(), initial_parameters(), make_engine(tmp_path / "hospitals"), tmp_path / "run"
    )
    silent_engine = make_engine(tmp_path / "elsewhere")
    again = run_rounds(settings(), initial_parameters(), silent_engine, tmp_path / "run", resume=True)
    assert not (tmp_path / "elsewhere").exists()
    assert again.history == first.history
    assert_same(again, uninterrupted, tmp_path)


def test_resume_where_nothing_is_starts_anew(tmp_path: Path, uninterrupted: RoundsResult) -> None:
    assert_same(resume(tmp_path), uninterrupted, tmp_path)


def test_existing_run_is_refused_and_untouched(tmp_path: Path) -> None:
    run_rounds(make_settings(rounds=2), initial_parameters(), make_engine(), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(HistoryError, match="--resume, or choose another output"):
        run_rounds(make_settings(rounds=2), initial_parameters(), make_engine(), tmp_path)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("field", "word"), [("study", "settings"), ("fingerprint", "network")])
def test_changed_settings_are_refused(field: str, word: str, tmp_path: Path) -> None:
    given = make_settings(rounds=2)
    run_rounds(given, initial_parameters(), make_engine(), tmp_path)
    changed = dataclasses.replace(given, **{field: "0" * 64})
    with pytest.raises(HistoryError, match=f"another {word} digest"):
        run_rounds(changed, initial_parameters(), make_engine(), tmp_path, resume=True)


def test_interrupt_leaves_nothing_half_written(tmp_path: Path, uninterrupted: RoundsResult) -> None:
    def interrupt(step: str, done: int, total: int) -> None:
        if step == "rounds" and done == 3:
            raise KeyboardInterrupt

    engine = make_engine(tmp_path / "hospitals")
    with pytest.raises(KeyboardInterrupt):
        run_rounds(settings(), initial_parameters(), engine, tmp_path / "run", progress=interrupt)
    assert not list(tmp_path.rglob("*.part"))
    for line in (tmp_path / "run" / HISTORY_NAME).read_text().splitlines():
        json.loads(line)
    assert_same(resume(tmp_path), uninterrupted, tmp_path)
