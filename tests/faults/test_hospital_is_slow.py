"""A hospital that is not done by the deadline of a round."""

from __future__ import annotations

from pathlib import Path

from tests.deployment.running import RunningFederation, tiny_study, wait_until


def test_a_hospital_too_slow_for_the_deadline_is_missing_and_gives_its_training_up(
    running: RunningFederation, images: Path
) -> None:
    # The others must be done by then, on a busy machine too.
    study = tiny_study(images, "slow", network={"deadline": 20})
    running.start()
    running.submit(study)

    with running.held_in_training(study, 2, "east"), running.session() as session:
        wait_until(
            lambda: session.ask("status", name=study.name)["step"] != "training", 60, "the deadline passes"
        )
    lost = running.wait_for_round(study, 2)
    ended = running.follow(study)

    assert ended["state"] == "finished"
    assert "not done after" in lost["missing"]["east"]
    assert set(lost["hospitals"]) == {"north", "south", "west"}
    assert "no longer waits for this answer" in running.notices(running.hospital("east"))
    assert set(lost["evaluation"]["hospitals"]) == set(running.names)
    assert set(running.rounds(study)[3]["hospitals"]) == set(running.names)
