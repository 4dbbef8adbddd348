"""A hospital sends what it must not: refused, the history says why, and the study goes on without it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from tests.deployment.running import RunningFederation, run_fedlens, study_file, tiny_study

_LIAR = Path(__file__).with_name("lying_hospital.py")


def start_liar(running: RunningFederation, name: str, lies: dict[int, str]) -> None:
    """Start a hospital that lies in some rounds; wait until it is connected."""
    command = [sys.executable, str(_LIAR), str(running.hospital(name)), str(running.data / name)]
    running.start_process(name, [*command, json.dumps(lies)])
    running.wait_for_hospital(name)


def test_lies_in_the_clear_are_refused_each_for_what_it_is(running: RunningFederation, images: Path) -> None:
    lies = {1: "nan", 2: "shape", 3: "fingerprint", 4: "study", 5: "sender", 6: "garbage"}
    reasons = {
        1: "expected finite values",
        2: "expected float32 (",
        3: "fingerprint = ffff",
        4: "study = aaaa",
        5: "hospital = north",
        6: "",
    }
    study = tiny_study(images, "lies", training={"passes": 14}, federation={"rounds": 7})
    running.start(("north", "south", "east"))
    start_liar(running, "west", lies)
    running.submit(study)

    ended = running.follow(study)

    assert ended["state"] == "finished"
    rounds = running.rounds(study)
    for number, reason in reasons.items():
        assert set(rounds[number]["hospitals"]) == {"north", "south", "east"}
        assert reason in rounds[number]["refused"]["west"]
    assert set(rounds[7]["hospitals"]) == set(running.names)
    assert all(np.isfinite(array).all() for array in running.weights(study, 7).values())


def test_lies_under_a_seal_are_refused_by_whoever_can_see_them(
    running: RunningFederation, images: Path, tmp_path: Path
) -> None:
    lies = {1: "nan before sealing", 2: "sealed shape", 3: "sealed values", 5: "totals before sealing"}
    study = tiny_study(
        images,
        "lies",
        sealing={"mode": "on"},
        training={"passes": 10},
        federation={"rounds": 5},
    ).model_copy(update={"output": tmp_path / "out"})
    running.start(("north", "south", "east"))
    start_liar(running, "west", lies)
    running.submit(study)

    ended = running.follow(study)

    rounds = running.rounds(study)
    for number in (1, 2, 3):
        assert set(rounds[number]["hospitals"]) == {"north", "south", "east"}
    # Nobody else could see this one.
    assert "does not seal its update" in rounds[1]["missing"]["west"]
    assert "west" in rounds[2]["refused"]
    assert "not what it signed" in rounds[3]["refused"]["west"]
    assert set(rounds[4]["hospitals"]) == set(running.names)
    # What only the sum shows ends the study: whose numbers were false is not to be seen.
    assert ended["state"] == "failed"
    assert "contradict each other" in ended["reason"]
    assert [event["round"] for event in running.failures(study)] == [5]

    running.stop("west")
    running.start_hospital("west")
    file = study_file(tmp_path / "study.toml", study)
    done = run_fedlens("resume", str(file), "--kit", str(running.folder / "lead"), "--follow")

    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(running.rounds(study)) == [1, 2, 3, 4, 5]
    assert len(running.failures(study)) == 1
    assert all(np.isfinite(array).all() for array in running.weights(study, 5).values())
