"""The lead's side, with FLARE's session played here."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nvflare.fuel.flare_api import flare_api
from safetensors.numpy import load_file, save_file
from tests.coordinator import fakes

from fedlens.arms import initial_network
from fedlens.coordinator.checkpoints import checkpoint_path, read_checkpoint
from fedlens.coordinator.history import HISTORY_NAME
from fedlens.coordinator.rounds import run_rounds
from fedlens.coordinator.settings import CoordinatorSettings
from fedlens.deployment import session as sessions
from fedlens.deployment.kit import Kit
from fedlens.deployment.session import Session, collect_results, make_submission
from fedlens.deployment.submission import Submission
from fedlens.errors import (
    DeploymentError,
    FedLensError,
    HistoryError,
    RoundError,
    SettingsError,
)
from fedlens.models.checkpoint import WEIGHTS_NAME, read_contract
from fedlens.models.fingerprint import fingerprint
from fedlens.models.parameters import to_parameters
from fedlens.protocol.codec import decode
from fedlens.run_folder import MODEL_NAME, kept_study
from fedlens.study import Study

Answer = dict[str, Any]
Coordinator = Callable[[str, Answer], Any]


def make_study(**changes: Any) -> Study:
    content: dict[str, Any] = {
        "name": "tiny",
        "output": "/somewhere/runs",
        "data": {"folder": "/somewhere/images", "classes": ("ill", "normal")},
        "preprocess": {"size": 32},
    }
    return Study.model_validate({**content, **changes})


class FakeFlare:
    """FLARE's session: hands each command to a coordinator of the test's own."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self.commands: list[tuple[str, Answer]] = []
        self.closed = False

    def do_command(self, command: str, props: Answer) -> Answer:
        name, what = command.split()
        assert name == "fedlens"
        # As FLARE sends it: JSON there and back.
        asked = json.loads(json.dumps(props))
        self.commands.append((what, asked))
        answer = self._coordinator(what, asked)
        if isinstance(answer, dict) and "data" in answer:
            return answer
        return {"status": "ok", "data": [{"type": "string", "data": json.dumps(answer)}, {"type": "success"}]}

    def close(self) -> None:
        self.closed = True


Connect = Callable[[Coordinator], Session]


@pytest.fixture
def connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Make a session with a coordinator that answers by a function."""
    monkeypatch.setattr(sessions, "_POLL_SECONDS", 0.0)
    kit = Kit(tmp_path / "lead", "lead", "lead@example.org", "chest", "localhost", 8002)

    def make(coordinator: Coordinator) -> Session:
        def new_secure_session(user: str, place: str, timeout: float) -> FakeFlare:
            assert (user, place) == ("lead@example.org", str(tmp_path / "lead" / "flare"))
            assert 0 < timeout < 60
            print("FLARE talks a lot")
            return FakeFlare(coordinator)

        monkeypatch.setattr(flare_api, "new_secure_session", new_secure_session)
        return Session(kit)

    yield make


def flare(session: Session) -> FakeFlare:
    made: FakeFlare = session._session
    return made


def test_a_session_ends_with_its_block_and_says_nothing(
    connect: Connect, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyError), connect(lambda what, asked: {}) as session:
        assert not flare(session).closed
        raise KeyError
    assert flare(session).closed
    assert capsys.readouterr() == ("", "")


def test_a_coordinator_out_of_reach_is_said_to_be(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(lambda what, asked: {})
    stdout = sys.stdout

    def refused(*_: object, **__: object) -> None:
        raise RuntimeError("cannot connect")

    monkeypatch.setattr(flare_api, "new_secure_session", refused)
    kit = Kit(Path("lead"), "lead", "lead@example.org", "chest", "far.example.org", 8003)
    with pytest.raises(DeploymentError) as caught:
        Session(kit)
    assert "No session with the coordinator at far.example.org:8003: cannot connect" in caught.value.what
    assert caught.value.fix == "Start it with: fedlens coordinator start"
    assert caught.value.exit_code == 8
    assert sys.stdout is stdout


def test_what_is_asked_travels_beside_the_command(connect: Connect) -> None:
    session = connect(lambda what, asked: {"you": what, **asked})
    assert session.ask("status", name="tiny", since=3) == {"you": "status", "name": "tiny", "since": 3}


@pytest.mark.parametrize(
    ("code", "kind"),
    [(2, SettingsError), (5, RoundError), (6, HistoryError), (8, DeploymentError), (1, FedLensError)],
)
def test_an_error_comes_back_as_the_coordinator_raised_it(
    connect: Connect, code: int, kind: type[FedLensError]
) -> None:
    told = {"what": "What happened.", "why": "Why.", "fix": "What to do.", "code": code}
    with pytest.raises(FedLensError) as caught:
        connect(lambda what, asked: {"error": told}).ask("status", name="tiny")
    error = caught.value
    assert type(error) is kind and error.exit_code == code
    assert (error.what, error.why, error.fix) == ("What happened.", "Why.", "What to do.")


def test_a_connection_that_breaks_is_no_fault_of_the_study(connect: Connect) -> None:
    def breaks(what: str, asked: Answer) -> None:
        raise ConnectionResetError("gone")

    with pytest.raises(DeploymentError, match=r"did not answer: gone\. .*go on without this session"):
        connect(breaks).ask("studies")


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ({"data": [{"type": "error", "data": "user not authorized"}]}, "user not authorized"),
        ({"data": [], "status": "error_authz"}, "error_authz"),
        ({"data": [{"type": "string", "data": "no JSON"}]}, "no JSON"),
    ],
)
def test_a_command_that_flare_refused_is_said_to_be(connect: Connect, reply: Answer, words: str) -> None:
    with pytest.raises(DeploymentError, match=f"refused the command: {words}") as caught:
        connect(lambda what, asked: reply).ask("studies")
    assert "authorization" in caught.value.why


def test_a_submission_holds_the_network_that_a_run_would_start_from() -> None:
    study = make_study(seed=5)
    submission = make_submission(study)
    network = initial_network(study, classes=2)
    expected = to_parameters(network)
    assert submission.parameters.keys() == expected.keys()
    assert all(np.array_equal(submission.parameters[name], expected[name]) for name in expected)
    assert submission.fingerprint == fingerprint(network)
    assert set(submission.norm_names) | set(submission.buffer_names) <= expected.keys()
    assert submission.norm_names and submission.buffer_names


def test_its_settings_are_the_studys_without_paths() -> None:
    study = make_study()
    submission = make_submission(study)
    assert "/somewhere" not in submission.settings
    assert submission.study.digest() == study.digest()
    assert submission.coordinator_settings().classes == ("ill", "normal")


def test_where_training_starts_stays_at_the_lead(tmp_path: Path) -> None:
    study = make_study()
    elsewhere = to_parameters(initial_network(make_study(seed=9), classes=2))
    save_file(elsewhere, tmp_path / "start.safetensors")
    model = study.model.model_copy(update={"start": tmp_path / "start.safetensors"})
    submission = make_submission(study.model_copy(update={"model": model}))
    assert str(tmp_path) not in submission.settings and submission.study.model.start is None
    fresh = make_submission(study).parameters
    assert any(not np.array_equal(submission.parameters[name], fresh[name]) for name in fresh)
    assert all(np.array_equal(submission.parameters[name], elsewhere[name]) for name in fresh)


def test_classes_must_be_named() -> None:
    with pytest.raises(SettingsError, match=r"data\.classes is empty") as caught:
        make_submission(make_study(data={"folder": "images"}))
    assert caught.value.exit_code == 2


def test_a_study_arrives_whole_in_pieces(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_PIECE_BYTES", 1 << 20)
    session = connect(lambda what, asked: {"study": "tiny"} if what == "submit" else {})
    study = make_study()
    told: list[tuple[str, int, int]] = []

    assert session.submit(study, lambda *step: told.append(step)) == {"study": "tiny"}

    *uploads, (last, asked) = flare(session).commands
    assert last == "submit" and {what for what, _ in uploads} == {"upload"}
    pieces = [base64.b64decode(part["content"]) for _, part in uploads]
    assert len(pieces) > 2 and {len(piece) for piece in pieces[:-1]} == {1 << 20}
    assert {part["upload"] for _, part in uploads} == {asked["upload"]}
    assert decode(b"".join(pieces), Submission).study.digest() == study.digest()
    size = sum(map(len, pieces))
    assert told[-1] == ("submit", size, size) and len(told) == len(pieces)


def test_two_submissions_do_not_mix(connect: Connect) -> None:
    session = connect(lambda what, asked: {})
    submission = make_submission(make_study())
    session.hand_over(submission)
    session.hand_over(submission)
    assert len({asked["upload"] for _, asked in flare(session).commands}) == 2


def test_a_refused_study_is_refused_with_the_coordinators_words(connect: Connect) -> None:
    told = {"what": "Study other is running.", "why": "", "fix": "Wait.", "code": 5}
    session = connect(lambda what, asked: {"error": told} if what == "submit" else {})
    with pytest.raises(RoundError, match=r"Study other is running\. Wait\."):
        session.submit(make_study())


def test_every_event_is_told_once_and_in_order(connect: Connect) -> None:
    events = [{"event": "start"}, {"event": "round", "round": 1}, {"event": "end"}]
    # Told in steps: nothing yet, two, none new, ended with one more.
    states = iter([("waiting", 0), ("running", 2), ("running", 2), ("finished", 3)])

    def coordinator(what: str, asked: Answer) -> Answer:
        state, count = next(states)
        assert (what, asked["name"]) == ("status", "tiny")
        return {"state": state, "events": events[asked["since"] : count], "count": count}

    watched: list[Answer] = []
    seen: list[str] = []
    ended = connect(coordinator).follow("tiny", watched.append, lambda status: seen.append(status["state"]))
    assert watched == events
    assert seen == ["waiting", "running", "running", "finished"]
    assert ended["state"] == "finished"


@pytest.mark.parametrize("state", ["finished", "failed", "stopped", "interrupted"])
def test_it_ends_when_the_study_has(connect: Connect, state: str) -> None:
    session = connect(lambda what, asked: {"state": state, "events": [], "count": 0})
    assert session.follow("tiny", lambda event: None, lambda status: None)["state"] == state


def test_a_status_that_is_short_of_events_is_asked_again(connect: Connect) -> None:
    def coordinator(what: str, asked: Answer) -> Answer:
        since = asked["since"]
        return {"state": "finished", "events": [{"number": since}], "count": 3}

    watched: list[Answer] = []
    connect(coordinator).follow("tiny", watched.append, lambda status: None)
    assert watched == [{"number": 0}, {"number": 1}, {"number": 2}]


def shelf(files: dict[str, tuple[str, bytes]], most: int = 1000) -> Coordinator:
    """A coordinator from which files are fetched, ``most`` bytes at a time."""

    def coordinator(what: str, asked: Answer) -> Answer:
        assert what == "fetch"
        if asked["file"] not in files:
            return {"error": {"what": f"No {asked['file']}.", "why": "", "fix": "", "code": 5}}
        name, content = files[asked["file"]]
        piece = content[asked["start"] : asked["start"] + most]
        return {"content": base64.b64encode(piece).decode(), "size": len(content), "name": name}

    return coordinator


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 5000])
def test_a_file_arrives_as_it_was(connect: Connect, tmp_path: Path, size: int) -> None:
    content = np.random.default_rng(size).bytes(size)
    told: list[tuple[str, int, int]] = []
    name = connect(shelf({"rounds": ("round-0002", content)})).fetch(
        "tiny", "rounds", tmp_path / "new" / "file", lambda *step: told.append(step)
    )
    assert name == "round-0002"
    assert (tmp_path / "new" / "file").read_bytes() == content
    assert told[-1] == ("fetch", size, size)


def test_a_file_that_shrinks_meanwhile_is_refused_and_nothing_written(
    connect: Connect, tmp_path: Path
) -> None:
    def coordinator(what: str, asked: Answer) -> Answer:
        content = b"" if asked["start"] else b"abc"
        return {"content": base64.b64encode(content).decode(), "size": 9, "name": "x"}

    with pytest.raises(DeploymentError, match="changed while it was fetched"):
        connect(coordinator).fetch("tiny", "history", tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def finish(study: Study, folder: Path) -> dict[str, tuple[str, bytes]]:
    """Result files of the study, as a coordinator keeps them once it has finished."""
    settings = CoordinatorSettings.from_study(
        study,
        fingerprint="f" * 64,
        classes=study.data.classes,
        norm_names=fakes.NORM_NAMES,
        buffer_names=fakes.BUFFER_NAMES,
    )
    run_rounds(settings, fakes.initial_parameters(), fakes.make_engine(), folder)
    paths = {
        "history": folder / HISTORY_NAME,
        "rounds": checkpoint_path(folder, 2),
        "best_round": checkpoint_path(folder, 1),
    }
    return {name: (path.name, path.read_bytes()) for name, path in paths.items()}


@pytest.mark.parametrize(("patience", "number"), [(0, 2), (3, 1)])
def test_results_lie_where_a_run_on_one_machine_would_put_them(
    connect: Connect, tmp_path: Path, patience: int, number: int
) -> None:
    study = make_study(training={"patience": patience}, federation={"rounds": 2})
    there = tmp_path / "there"
    arm = collect_results(connect(shelf(finish(study, there))), study, tmp_path / "run")

    assert arm == tmp_path / "run" / "seed-0" / "federated"
    assert (arm / HISTORY_NAME).read_bytes() == (there / HISTORY_NAME).read_bytes()
    contract = read_contract(arm / MODEL_NAME)
    assert (contract.round, contract.study) == (number, study.digest())
    assert contract.classes == ("ill", "normal")
    kept = load_file(arm / MODEL_NAME / WEIGHTS_NAME)
    expected = read_checkpoint(checkpoint_path(there, number)).parameters
    assert kept.keys() == expected.keys()
    assert all(np.array_equal(kept[name], expected[name]) for name in expected)
    assert {path.name for path in arm.iterdir()} == {HISTORY_NAME, MODEL_NAME}
    assert kept_study(tmp_path / "run") is not None


def test_results_are_fetched_again_over_earlier_ones(connect: Connect, tmp_path: Path) -> None:
    study = make_study(federation={"rounds": 2})
    session = connect(shelf(finish(study, tmp_path / "there")))
    first = collect_results(session, study, tmp_path / "run")
    weights = (first / MODEL_NAME / WEIGHTS_NAME).read_bytes()
    assert collect_results(session, study, tmp_path / "run") == first
    assert (first / MODEL_NAME / WEIGHTS_NAME).read_bytes() == weights


def test_results_do_not_take_the_place_of_a_run_of_this_machine(connect: Connect, tmp_path: Path) -> None:
    study = make_study(federation={"rounds": 2})
    session = connect(shelf(finish(study, tmp_path / "there")))
    own = tmp_path / "run" / f"seed-{study.seed}" / "federated" / "rounds"
    own.mkdir(parents=True)
    with pytest.raises(HistoryError, match="would overwrite"):
        collect_results(session, study, tmp_path / "run")
    assert [path for path in (tmp_path / "run").rglob("*") if path.is_file()] == []


def test_a_study_that_has_not_finished_leaves_nothing(connect: Connect, tmp_path: Path) -> None:
    with pytest.raises(RoundError, match="No rounds"):
        collect_results(connect(shelf({})), make_study(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
