"""Where a study stands: running, silent, waiting, stopped or finished."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.deployment.in_process import InProcessCarrier, QuickMembership, make_kits, quick_submission
from tests.viewer.studies import ROUNDS, age, append, keep_settings, make_arm, predict, view_of

from fedlens.deployment import study_run
from fedlens.deployment.study_run import StudyRun, keep_submission, study_folder
from fedlens.engines import nvflare
from fedlens.files import write_text
from fedlens.protocol.codec import encode
from fedlens.protocol.messages import TrainRequest
from fedlens.protocol.roster import COORDINATOR
from fedlens.viewer.study_files import StudyFiles
from fedlens.viewer.study_state import Standing, standing

HOUR = 3600.0


def state_of(run: Path, later: float = 0.0) -> Standing:
    files = StudyFiles(run)
    return standing(files, files.study(), time.time() + later)


def test_before_the_first_round_it_waits(tmp_path: Path) -> None:
    assert state_of(tmp_path).state == "waiting"
    keep_settings(tmp_path)
    found = state_of(tmp_path)
    assert (found.state, found.current, found.arms) == ("waiting", None, ())
    assert state_of(tmp_path, HOUR).state == "quiet"


def test_a_run_under_way_says_how_far_it_is_and_for_how_long_yet(tmp_path: Path) -> None:
    keep_settings(tmp_path)
    make_arm(tmp_path, until=3)
    current = state_of(tmp_path).current
    assert current is not None
    assert (current.state, current.done, current.planned) == ("running", 3, ROUNDS)
    assert current.left is not None and current.left > 0


def test_silence_much_longer_than_a_round_is_told(tmp_path: Path) -> None:
    keep_settings(tmp_path)
    folder = make_arm(tmp_path, until=3)
    assert state_of(tmp_path, HOUR).state == "quiet"
    age(folder, HOUR)
    # A round may take long: a hospital that has kept its state is a sign of life.
    write_text(folder / "hospitals" / "A" / "state-00004.safetensors", "")
    assert state_of(tmp_path).state == "running"


def test_a_round_that_came_to_nothing_stops_a_run_of_one_machine(tmp_path: Path) -> None:
    keep_settings(tmp_path)
    folder = make_arm(tmp_path, until=3)
    append(folder, '{"event": "failed", "round": 4, "reason": "Only 1 hospital answered."}\n')
    found = state_of(tmp_path)
    assert (found.state, found.reason) == ("stopped", "Only 1 hospital answered.")


def test_a_finished_run_is_measured_until_its_report_is_there(tmp_path: Path) -> None:
    keep_settings(tmp_path)
    predict(make_arm(tmp_path))
    found = state_of(tmp_path)
    assert found.state == "running" and "report" in found.reason
    # Of runs without a report nobody expects one for ever.
    assert state_of(tmp_path, HOUR).state == "finished"
    write_text(tmp_path / "report.html", "")
    assert (state_of(tmp_path).state, state_of(tmp_path).reason) == ("finished", "All rounds are done.")


def test_a_comparison_names_the_arms_to_come_in_the_order_of_their_training(tmp_path: Path) -> None:
    keep_settings(tmp_path, compare={"arms": ("federated", "central", "local"), "seeds": (0, 1)})
    make_arm(tmp_path, "central")
    make_arm(tmp_path, "federated", until=2)
    found = state_of(tmp_path)
    assert found.current is not None and found.current.arm == "federated"
    alone = [f"local-{name}" for name in "ABCD"]
    expected = [(0, "central"), (0, "federated"), *((0, arm) for arm in alone)]
    expected += [(1, "central"), (1, "federated"), *((1, arm) for arm in alone)]
    assert [(arm.seed, arm.arm) for arm in found.arms] == expected
    assert [arm.place is not None for arm in found.arms] == [True, True] + [False] * 10
    assert found.arms[2].label == "Hospital A alone"


def test_a_run_alone_expects_no_other_arm(tmp_path: Path) -> None:
    keep_settings(tmp_path)
    make_arm(tmp_path, until=1)
    assert len(state_of(tmp_path).arms) == 1


def test_between_two_arms_it_is_running(tmp_path: Path) -> None:
    keep_settings(tmp_path, compare={"arms": ("central", "federated"), "seeds": (0,)})
    make_arm(tmp_path, "central")
    assert (state_of(tmp_path).state, state_of(tmp_path, HOUR).state) == ("running", "quiet")


@pytest.mark.parametrize("part", ["seed-0", "seed-0/federated"])
def test_a_part_of_a_run_folder_is_enough(tmp_path: Path, part: str) -> None:
    keep_settings(tmp_path)
    make_arm(tmp_path, "central")
    make_arm(tmp_path)
    files = StudyFiles(tmp_path / part)
    study = files.study()
    assert study is not None and study.name == "chest"
    assert files.arms()[-1].arm == "federated"
    assert len(files.arms()) == (2 if part == "seed-0" else 1)


def test_a_line_that_is_being_written_is_not_read_yet(tmp_path: Path) -> None:
    keep_settings(tmp_path)
    append(make_arm(tmp_path, until=2), '{"event": "rou')
    current = state_of(tmp_path).current
    assert current is not None and current.done == 2


@pytest.fixture
def coordinator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyRun:
    """A study at its coordinator, with hospitals in this process."""
    monkeypatch.setattr(study_run, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(nvflare, "_PAUSE_SECONDS", 0.005)
    kits = make_kits(tmp_path / "kits", sealing="optional")
    carrier = InProcessCarrier(kits, tmp_path / "machines", QuickMembership)
    keep_submission(kits[COORDINATOR], encode(quick_submission(network={"wait": 0.1})))
    return StudyRun(kits[COORDINATOR], "tiny", carrier)


def test_a_study_at_its_coordinator(coordinator: StudyRun) -> None:
    files = StudyFiles(coordinator.folder)
    study = files.study()
    assert files.at_coordinator and study is not None and study.name == "tiny"
    waiting = state_of(coordinator.folder)
    assert (waiting.state, waiting.reason) == ("waiting", "Hospitals are waited for.")
    coordinator.run()
    found = state_of(coordinator.folder)
    # Its report is made where the lead is.
    assert (found.state, found.reason) == ("finished", "All rounds are done.")
    assert found.current is not None and found.current.done == 2
    assert state_of(coordinator.folder, 24 * HOUR).state == "finished"
    view = view_of(coordinator.folder)
    assert view.title == "tiny" and view.shown is not None
    assert [line.name for line in view.shown.hospitals] == ["north", "south", "east", "west"]
    assert view.compared is None and [file.name for file in view.downloads] == ["history.jsonl"]


def test_a_coordinator_that_waits_for_hospitals_or_has_given_up_says_so(coordinator: StudyRun) -> None:
    coordinator._carrier.fails = lambda hospital, kind: (  # type: ignore[attr-defined]
        "Its disk is full." if kind == TrainRequest.kind and hospital != "north" else ""
    )
    coordinator.run()
    found = state_of(coordinator.folder)
    assert found.state == "stopped" and "only 1 hospitals answered usably" in found.reason
    log = coordinator.folder / "study.log"
    write_text(log, "".join(log.read_text().splitlines(keepends=True)[:-1]))
    found = state_of(coordinator.folder)
    assert found.state == "waiting" and "only 1 hospitals answered usably" in found.reason


def test_a_coordinator_that_was_stopped_before_the_first_round(coordinator: StudyRun) -> None:
    coordinator._carrier.away = {"north"}  # type: ignore[attr-defined]
    coordinator.run()
    found = state_of(study_folder(coordinator._kit, "tiny"))
    assert found.state == "stopped" and found.reason.startswith("Waited 0 seconds for 4 hospitals")
