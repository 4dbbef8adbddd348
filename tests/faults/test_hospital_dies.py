"""A hospital's trainer, or all of a hospital, is killed in the middle of a round."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.deployment.running import RunningFederation, run_fedlens, tiny_study

SEALED = {"mode": "on"}
CLEAR = {"mode": "off"}


@pytest.mark.parametrize("sealing", [SEALED, CLEAR], ids=["sealed", "clear"])
def test_a_trainer_killed_in_training_is_started_again_and_takes_part_in_the_next_round(
    running: RunningFederation, images: Path, sealing: dict[str, str]
) -> None:
    study = tiny_study(images, "trainer", sealing=sealing)
    running.start()
    running.submit(study)

    with running.held_in_training(study, 2, "east"):
        running.child("east", "deployment.service").kill()
    lost = running.wait_for_round(study, 2)
    ended = running.follow(study)

    assert ended["state"] == "finished"
    assert "ended in the middle of its work" in lost["missing"]["east"]
    assert set(lost["hospitals"]) == {"north", "south", "west"}
    assert set(running.rounds(study)[3]["hospitals"]) == set(running.names)
    assert "service ended (signal 9)" in running.notices(running.hospital("east"))
    assert running.notices(running.hospital("east")).count("service of east is ready") == 2


def test_a_hospital_that_died_whole_in_a_clear_round_is_missing_from_it_and_comes_back(
    running: RunningFederation, images: Path
) -> None:
    study = tiny_study(images, "power", network={"grace": 4}, federation={"rounds": 4})
    running.start()
    running.submit(study)

    with running.held_in_training(study, 2, "west"):
        running.kill("west")
    lost = running.wait_for_round(study, 2)
    with running.held("north"):
        running.start_hospital("west")
    ended = running.follow(study)

    assert ended["state"] == "finished"
    assert "out of reach" in lost["missing"]["west"]
    assert set(running.rounds(study)[4]["hospitals"]) == set(running.names)
    shown = run_fedlens("status", str(running.coordinator / "studies" / study.name))
    assert "3 of 4" in shown.stdout


def test_a_hospital_back_within_the_round_is_missing_from_that_round_only(
    running: RunningFederation, images: Path
) -> None:
    study = tiny_study(images, "quick", sealing=SEALED, network={"grace": 60})
    running.start()
    running.submit(study)

    with running.held_in_training(study, 2, "south"), running.held("north"):
        running.kill("south")
        running.start_hospital("south")
    lost = running.wait_for_round(study, 2)
    ended = running.follow(study)

    assert ended["state"] == "finished"
    assert "started again" in lost["missing"]["south"]
    assert set(running.rounds(study)[3]["hospitals"]) == set(running.names)


def test_a_relay_killed_in_training_is_started_again(running: RunningFederation, images: Path) -> None:
    study = tiny_study(images, "relay", sealing=SEALED)
    running.start()
    running.submit(study)

    with running.held_in_training(study, 2, "east"):
        running.child("east", "client_train").kill()
        running.wait_for_notice(running.hospital("east"), "connected to the coordinator", count=2)
    lost = running.wait_for_round(study, 2)
    ended = running.follow(study)

    assert ended["state"] == "finished"
    assert "started again" in lost["missing"]["east"]
    assert set(running.rounds(study)[3]["hospitals"]) == set(running.names)
