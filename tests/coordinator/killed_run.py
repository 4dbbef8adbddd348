"""A run in a process of its own that kills itself, or waits to be killed: FOLDER POINT."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.coordinator.fakes import FakeHospital, initial_parameters, make_engine, make_settings

from fedlens.coordinator import checkpoints, rounds
from fedlens.coordinator.history import History

ROUNDS = 6


def settings() -> Any:
    return make_settings(rounds=ROUNDS, strategy="fedadam", server_learning_rate=0.1)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_call(function: Callable[..., Any], count: int, *, after: bool) -> Callable[..., Any]:
    """The function, but its call number ``count`` kills the process, before or after its work."""
    calls = 0

    def wrapper(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count and not after:
            die()
        result = function(*arguments)
        if calls == count and after:
            die()
        return result

    return wrapper


def torn_append(self: History, event: dict[str, Any]) -> None:
    if event.get("round") == 4:
        with self._path.open("a") as stream:
            stream.write('{"event": "round", "rou')
            stream.flush()
            die()
    whole_append(self, event)


def half_write(path: Path, content: bytes) -> None:
    if path.name == "round-0004.safetensors":
        (path.parent / f".{path.name}.x1y2.part").write_bytes(content[: len(content) // 2])
        die()
    whole_write(path, content)


whole_append = History.append
whole_write = checkpoints.write_bytes
POINTS: dict[str, Callable[[], None]] = {
    "never": lambda: None,
    # Calls of train: 4 a round. The 15th is hospital C's in round 4.
    "before training": lambda: setattr(
        FakeHospital, "train", die_in_call(FakeHospital.train, 15, after=False)
    ),
    "hospital state saved": lambda: setattr(
        FakeHospital, "save", die_in_call(FakeHospital.save, 15, after=True)
    ),
    "torn history": lambda: setattr(History, "append", torn_append),
    # The first checkpoint is of round 0.
    "history ahead": lambda: setattr(
        rounds, "write_checkpoint", die_in_call(rounds.write_checkpoint, 5, after=False)
    ),
    "checkpoint half-written": lambda: setattr(checkpoints, "write_bytes", half_write),
    "first checkpoint": lambda: setattr(
        rounds, "write_checkpoint", die_in_call(rounds.write_checkpoint, 1, after=False)
    ),
}

if __name__ == "__main__":
    folder, point = Path(sys.argv[1]), sys.argv[2]
    if point != "slow":
        POINTS[point]()
    engine = make_engine(folder / "hospitals", delay=0.005 if point == "slow" else 0.0)
    rounds.run_rounds(settings(), initial_parameters(), engine, folder / "run")
