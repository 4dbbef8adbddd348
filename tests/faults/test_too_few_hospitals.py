"""Fewer hospitals than a round takes: it waits, and then the study stops; never silently on a subset."""

from __future__ import annotations

from pathlib import Path

from tests.deployment.running import RunningFederation, run_fedlens, study_file, tiny_study

from fedlens.coordinator.history import Event


def _missing(event: Event) -> set[str]:
    return {*event["missing"], *event.get("evaluation", {}).get("missing", {})}


def test_below_its_least_a_study_waits_then_stops_and_names_who_is_away(
    running: RunningFederation, images: Path, tmp_path: Path
) -> None:
    study = tiny_study(images, "few", sealing={"mode": "on"}, network={"grace": 4, "wait": 10}).model_copy(
        update={"output": tmp_path / "out"}
    )
    file = study_file(tmp_path / "study.toml", study)
    kit = str(running.folder / "lead")
    running.start()
    running.submit(study)

    with running.held_in_training(study, 2, "east"):
        running.kill("east")
        running.kill("west")
    waiting = running.wait_for_status(study, "waiting")
    ended = running.follow(study)

    assert "away: east, west" in waiting["reason"]
    assert ended["state"] == "failed"
    assert "for 3 hospitals; away: east, west." in ended["reason"]
    assert sorted(running.rounds(study)) == [1]
    failed = running.failures(study)[0]
    assert failed["round"] == 2
    assert {"east", "west"} <= _missing(failed)
    shown = run_fedlens("status", study.name, "--kit", kit)
    assert "east, west" in shown.stdout, shown.stdout + shown.stderr
    followed = run_fedlens("resume", str(file), "--kit", kit, "--follow")
    assert followed.returncode == 5
    assert "away: east, west" in followed.stderr

    running.start_hospital("east", wait=False)
    running.start_hospital("west")
    running.wait_for_hospital("east")
    done = run_fedlens("resume", str(file), "--kit", kit, "--follow")

    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(running.rounds(study)) == [1, 2, 3]
    assert set(running.rounds(study)[3]["hospitals"]) == set(running.names)
    assert running.failures(study)[0] == failed


def test_hospitals_that_come_back_in_time_let_the_study_go_on_by_itself(
    running: RunningFederation, images: Path
) -> None:
    study = tiny_study(images, "wait", sealing={"mode": "on"}, network={"grace": 4, "wait": 120})
    running.start(("north", "south", "east"))
    running.submit(study)
    assert "away: west" in running.wait_for_status(study, "waiting")["reason"]
    running.start_hospital("west")

    with running.held_in_training(study, 2, "east"):
        running.kill("east")
        running.kill("west")
    running.wait_for_status(study, "waiting")
    running.start_hospital("east", wait=False)
    running.start_hospital("west")
    ended = running.follow(study)

    assert ended["state"] == "finished"
    assert sorted(running.rounds(study)) == [1, 2, 3]
    assert {"east", "west"} <= set(running.failures(study)[0]["missing"])
    assert len(running.rounds(study)[3]["hospitals"]) >= 3
