"""However a supervisor ends, in the middle of a round, no process outlives it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from tests.deployment.running import RunningFederation, tiny_study, wait_until


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_its_supervisor(
    running: RunningFederation, images: Path, number: signal.Signals
) -> None:
    study = tiny_study(images, "ends")
    running.start()
    running.submit(study)

    with running.held_in_training(study, 2, "east"):
        codes = {name: running.stop(name, number) for name in ("north", "coordinator")}
        for folder in (running.hospital("north"), running.coordinator):
            wait_until(lambda folder=folder: not running.left(folder), 10, f"no process of {folder}")
    codes["east"] = running.stop("east", number)

    assert set(codes.values()) == ({-number} if number == signal.SIGKILL else {0})
    # Nothing that was left behind keeps it from starting again.
    running.start_coordinator()
    running.start_hospital("north")
