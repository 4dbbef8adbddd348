"""Studies over a federation of real processes on loopback: to the end, and through the loss of a part."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.deployment.running import RunningFederation, run_fedlens, same, study_file, tiny_study

from fedlens.decision.bundle import kept_bundle
from fedlens.models.checkpoint import load_checkpoint
from fedlens.models.parameters import to_parameters
from fedlens.protocol.messages import Parameters
from fedlens.study import load_study


def test_a_study_from_start_to_finish_gives_the_weights_of_one_machine(
    running: RunningFederation, images: Path, tmp_path: Path, undisturbed: Parameters
) -> None:
    study = tiny_study(images, "whole", decision={"federated": True})
    study = study.model_copy(update={"output": tmp_path / "out"})
    file = study_file(tmp_path / "study.toml", study)
    assert load_study(file).digest() == study.digest()
    running.start()

    done = run_fedlens("submit", str(file), "--kit", str(running.folder / "lead"), "--follow")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "finished after 3 rounds" in done.stdout
    told = [event["event"] for event in running.history(study)]
    assert told == ["start", *["round"] * 3, "decision", "end"]
    for event in running.rounds(study).values():
        assert set(event["hospitals"]) == set(running.names)
        assert not event["missing"] and not event["refused"]
    assert same(running.weights(study, 3), undisturbed)
    model = tmp_path / "out" / "seed-0" / "federated" / "model"
    network, contract = load_checkpoint(model)
    assert same(to_parameters(network), undisturbed)
    advice = kept_bundle(model, contract)
    assert advice is not None and advice.facts.hospitals == 4


def test_a_hospital_that_lost_power_is_missing_and_comes_back(
    running: RunningFederation, images: Path
) -> None:
    study = tiny_study(
        images, "power", sealing={"mode": "on"}, network={"grace": 4}, federation={"rounds": 4}
    )
    running.start()
    running.submit(study)
    with running.held_in_training(study, 2, "south"):
        running.kill("south")
    lost = running.wait_for_round(study, 2)
    # The study must not end before the hospital is back.
    with running.held("north"):
        running.start_hospital("south")
    ended = running.follow(study)

    assert ended["state"] == "finished"
    assert "out of reach" in lost["missing"]["south"]
    assert set(lost["hospitals"]) == {"north", "east", "west"}
    assert set(running.rounds(study)[4]["hospitals"]) == set(running.names)


@pytest.mark.full
def test_a_coordinator_that_lost_power_goes_on_as_if_nothing_had_been(
    running: RunningFederation, images: Path, tmp_path: Path, undisturbed: Parameters
) -> None:
    study = tiny_study(images, "resumed").model_copy(update={"output": tmp_path / "out"})
    file = study_file(tmp_path / "study.toml", study)
    running.start()
    running.submit(study)
    with running.held_in_training(study, 2, "west"):
        running.kill("coordinator")
    assert set(running.rounds(study)) == {1}
    running.start_coordinator()
    done = run_fedlens("resume", str(file), "--kit", str(running.folder / "lead"), "--follow")

    assert done.returncode == 0, done.stdout + done.stderr
    assert [event["event"] for event in running.history(study)] == ["start", *["round"] * 3, "end"]
    assert same(running.weights(study, 3), undisturbed)
