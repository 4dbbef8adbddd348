"""The coordinator is killed in the middle of a round, started again, and the study is resumed."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tests.deployment.running import (
    RunningFederation,
    run_fedlens,
    run_tiny,
    same,
    study_file,
    tiny_study,
    wait_until,
)

from fedlens.protocol.messages import Parameters


def test_killed_twice_in_sealed_rounds_it_ends_with_the_weights_of_an_undisturbed_run(
    running: RunningFederation, images: Path, tmp_path: Path
) -> None:
    sealing = {"mode": "on"}
    study = tiny_study(images, "resumed", sealing=sealing).model_copy(update={"output": tmp_path / "out"})
    file = study_file(tmp_path / "study.toml", study)
    kit = str(running.folder / "lead")
    running.start()
    running.submit(study)

    for number in (2, 3):
        with running.held_in_training(study, number, "west"):
            running.kill("coordinator")
        assert max(running.rounds(study)) == number - 1
        running.start_coordinator()
        assert running.status(study)["state"] == "interrupted"
        if number == 2:
            assert run_fedlens("resume", str(file), "--kit", kit).returncode == 0
    done = run_fedlens("resume", str(file), "--kit", kit, "--follow")

    assert done.returncode == 0, done.stdout + done.stderr
    events = [event["event"] for event in running.history(study) if event["event"] != "segment"]
    assert events == ["start", *["round"] * 3, "end"]
    for event in running.rounds(study).values():
        assert set(event["hospitals"]) == set(running.names)
        assert not event["missing"] and not event["refused"]
    assert same(running.weights(study, 3), run_tiny(images, tmp_path / "local", sealing=sealing))


def test_killed_between_training_and_evaluation_it_repeats_the_round(
    running: RunningFederation, images: Path, tmp_path: Path, undisturbed: Parameters
) -> None:
    study = tiny_study(images, "measured").model_copy(update={"output": tmp_path / "out"})
    file = study_file(tmp_path / "study.toml", study)
    running.start()
    running.submit(study)

    with contextlib.ExitStack() as north, running.session() as session:
        with running.held_in_training(study, 2, "west"):
            wait_until(
                lambda: session.ask("status", name=study.name)["done"] == 3, 60, "all but west have trained"
            )
            north.enter_context(running.held("north"))
        wait_until(
            lambda: session.ask("status", name=study.name)["step"] == "evaluation", 60, "the evaluation"
        )
        running.kill("coordinator")
    assert max(running.rounds(study)) == 1
    running.start_coordinator()
    done = run_fedlens("resume", str(file), "--kit", str(running.folder / "lead"), "--follow")

    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(running.rounds(study)) == [1, 2, 3]
    assert same(running.weights(study, 3), undisturbed)
