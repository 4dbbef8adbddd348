"""The coordinator's desk: the lead's commands, without FLARE's server."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, ReturnCode
from nvflare.fuel.f3.message import Message
from nvflare.fuel.hci.reg import CommandModule
from nvflare.fuel.hci.server.authz import PreAuthzReturnCode
from nvflare.fuel.hci.server.constants import ConnProps
from nvflare.private.fed.server.server_cmd_modules import ServerCommandModules

from fedlens.arm_path import arm_path
from fedlens.coordinator.checkpoints import checkpoint_path
from fedlens.coordinator.history import HISTORY_NAME, Event, read_history
from fedlens.deployment import desk as desks
from fedlens.deployment import study_run
from fedlens.deployment.desk import Answer, CellCarrier, Desk
from fedlens.deployment.headers import CHANNEL, STATE
from fedlens.deployment.kit import Kit
from fedlens.deployment.notices import notices_path
from fedlens.deployment.study_run import SUBMISSION_NAME, Standing, study_folder
from fedlens.engines import nvflare
from fedlens.errors import DeploymentError, HistoryError, ProtocolError, RoundError
from fedlens.protocol.codec import encode
from fedlens.protocol.messages import TrainRequest
from fedlens.protocol.roster import COORDINATOR

from .in_process import NAMES, InProcessCarrier, QuickMembership, make_kits, quick_submission, wait_for


class FakeCell:
    """FLARE's server cell, with hospitals in this process at its other end."""

    def __init__(self, carrier: InProcessCarrier) -> None:
        self.carrier = carrier
        self.sent: list[dict[str, Any]] = []
        self.core_cell = self

    def get_fqcn(self) -> str:
        return "server"

    def add_incoming_filter(self, **_: Any) -> None:
        """The gate's; nothing comes in here."""

    def set_message_interceptor(self, *_: Any, **__: Any) -> None:
        """The gate's."""

    def send_request(self, *, target: str, topic: str, request: Message, timeout: float, **more: Any) -> Any:
        self.sent.append({"target": target, "topic": topic, "timeout": timeout, **more})
        answer = self.carrier.call(target, topic, request.headers, request.payload, timeout)
        if answer is None:
            return Message({MessageHeaderKey.RETURN_CODE: ReturnCode.TIMEOUT})
        return Message({MessageHeaderKey.RETURN_CODE: ReturnCode.OK, **answer[0]}, answer[1] or None)


class FakeContext:
    """What FLARE tells a component at its start."""

    def __init__(self, kit: Kit, cell: FakeCell) -> None:
        self._workspace = kit.flare
        self.server = self
        self.cell = cell

    def get_prop(self, key: str) -> str:
        assert key == FLContextKey.WORKSPACE_ROOT
        return str(self._workspace)

    def get_engine(self) -> FakeContext:
        return self


class FakeConnection:
    """FLARE's connection of one admin command."""

    def __init__(self, asked: dict[str, Any] | None) -> None:
        self._asked = asked
        self.said: list[str] = []

    def get_prop(self, key: str) -> dict[str, Any] | None:
        assert key == ConnProps.CMD_PROPS
        return self._asked

    def append_string(self, text: str) -> None:
        self.said.append(text)


class Bench:
    """A desk that has started, and the lead's words to it."""

    def __init__(self, folder: Path) -> None:
        self.kits = make_kits(folder / "kits", sealing="optional")
        self.kit = self.kits[COORDINATOR]
        self.carrier = InProcessCarrier(self.kits, folder, QuickMembership)
        self.cell = FakeCell(self.carrier)
        self.context = FakeContext(self.kit, self.cell)
        self.desk = Desk()
        (self.commands,) = ServerCommandModules.cmd_modules

    def start(self) -> Bench:
        self.desk.handle_event(EventType.SYSTEM_START, self.context)
        return self

    def restart(self) -> Bench:
        """The coordinator's process ends and begins."""
        self.desk.handle_event(EventType.SYSTEM_END, self.context)
        ServerCommandModules.cmd_modules.clear()
        self.desk = Desk()
        (self.commands,) = ServerCommandModules.cmd_modules
        return self.start()

    def ask(self, what: str, **asked: Any) -> Answer:
        return self.desk.answer(what, asked)

    def command(self, line: str, asked: dict[str, Any] | None = None) -> Answer:
        """As it comes through FLARE."""
        connection = FakeConnection(asked)
        (spec,) = self.commands.get_spec().cmd_specs
        spec.handler_func(connection, line.split())
        (said,) = connection.said
        answer: Answer = json.loads(said)
        return answer

    def upload(self, content: bytes, name: str = "u", piece: int = 1 << 20) -> None:
        for start in range(0, len(content), piece):
            part = base64.b64encode(content[start : start + piece]).decode()
            assert self.ask("upload", upload=name, content=part) == {}

    def submit(self, name: str = "tiny", **changes: Any) -> Answer:
        self.upload(encode(quick_submission(name, **changes)))
        return self.ask("submit", upload="u")

    def wait(self, *states: str, name: str = "tiny") -> Answer:
        """The study's status once it is in one of these states."""
        found: Answer = wait_for(
            lambda: (status := self.ask("status", name=name))["state"] in states and status, f"{states}"
        )
        return found

    def finish(self, name: str = "tiny", **changes: Any) -> Answer:
        self.submit(name, **changes)
        return self.wait("finished", name=name)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(study_run, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(nvflare, "_PAUSE_SECONDS", 0.005)
    monkeypatch.setattr(ServerCommandModules, "cmd_modules", [])
    made = Bench(tmp_path).start()
    yield made
    made.desk.handle_event(EventType.SYSTEM_END, made.context)
    if made.desk._run is not None:
        made.desk._run.join(20)
        assert not made.desk._run.is_alive()


def test_the_desk_says_when_it_is_ready(bench: Bench) -> None:
    assert "coordinator of chest is ready on port 8002" in notices_path(bench.kit.folder).read_text()


def test_before_its_start_every_command_is_told_to_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ServerCommandModules, "cmd_modules", [])
    bench = Bench(tmp_path)
    with pytest.raises(DeploymentError, match="still starting"):
        bench.ask("studies")
    with pytest.raises(DeploymentError, match="still starting"):
        bench.submit()


def test_a_submission_in_pieces_becomes_a_study_that_runs(bench: Bench) -> None:
    submission = quick_submission()
    content = encode(submission)
    bench.upload(content, piece=100)
    assert len(content) > 1000

    begun = bench.ask("submit", upload="u")

    assert begun == {
        "study": "tiny",
        "digest": submission.study.digest(),
        "fingerprint": submission.fingerprint,
    }
    assert (bench.kit.studies / "tiny" / SUBMISSION_NAME).read_bytes() == content
    status = bench.wait("finished")
    assert [event["event"] for event in status["events"]] == ["start", "round", "round", "end"]
    assert (status["study"], status["reason"], status["hospitals"], status["count"]) == ("tiny", "", {}, 4)
    assert "study tiny begins" in notices_path(bench.kit.folder).read_text()
    assert {call["channel"] for call in bench.cell.sent} == {CHANNEL}
    assert {call["target"] for call in bench.cell.sent} == set(NAMES)


def test_an_upload_is_taken_once(bench: Bench) -> None:
    bench.finish()
    with pytest.raises(DeploymentError, match="did not arrive whole"):
        bench.ask("submit", upload="u")


def test_of_two_uploads_only_the_later_one_is_kept(bench: Bench) -> None:
    bench.upload(b"first", "a")
    bench.upload(encode(quick_submission()), "b")
    with pytest.raises(DeploymentError, match="did not arrive whole"):
        bench.ask("submit", upload="a")
    assert bench.ask("submit", upload="b")["study"] == "tiny"


def test_an_upload_without_end_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "_MOST_SUBMISSION", 250)
    with pytest.raises(DeploymentError, match="too large"):
        bench.upload(bytes(300), piece=100)
    with pytest.raises(DeploymentError, match="did not arrive whole"):
        bench.ask("submit", upload="u")


def test_what_is_no_submission_is_refused_and_leaves_nothing(bench: Bench) -> None:
    bench.upload(b"nonsense")
    with pytest.raises(ProtocolError, match="kind submission"):
        bench.ask("submit", upload="u")
    assert bench.ask("studies") == {"studies": []}
    assert bench.submit()["study"] == "tiny"


def test_a_second_study_waits_for_the_first_to_end(bench: Bench) -> None:
    bench.carrier.away = {"north"}
    bench.submit()
    bench.wait("waiting")
    with pytest.raises(RoundError, match=r"Study tiny is running\. .*fedlens stop"):
        bench.submit("other")
    with pytest.raises(RoundError, match="Study tiny is running"):
        bench.ask("resume", name="tiny")
    assert bench.ask("studies")["studies"] == [{"study": "tiny", "state": "waiting"}]

    bench.ask("stop", name="tiny")
    bench.wait("stopped")
    wait_for(lambda: not bench.desk._run or not bench.desk._run.is_alive(), "its thread has ended")
    # What was uploaded for it is still there.
    assert bench.ask("submit", upload="u")["study"] == "other"
    assert [entry["study"] for entry in bench.ask("studies")["studies"]] == ["other", "tiny"]


def test_a_name_that_is_taken_is_refused(bench: Bench) -> None:
    bench.finish()
    with pytest.raises(RoundError, match="has a study named tiny already"):
        bench.submit(training={"passes": 9})
    assert bench.ask("status", name="tiny")["state"] == "finished"


def test_a_stopped_study_goes_on(bench: Bench) -> None:
    bench.carrier.away = {"north"}
    bench.submit()
    bench.wait("waiting")
    bench.ask("stop", name="tiny")
    bench.wait("stopped")
    wait_for(lambda: not bench.desk._run or not bench.desk._run.is_alive(), "its thread has ended")
    bench.carrier.away = set()
    assert bench.ask("resume", name="tiny")["study"] == "tiny"
    bench.wait("finished")


def test_only_a_study_that_runs_can_be_stopped(bench: Bench) -> None:
    with pytest.raises(RoundError, match="Study tiny is not running"):
        bench.ask("stop", name="tiny")
    bench.finish()
    for name in ("tiny", "other"):
        with pytest.raises(RoundError, match=f"Study {name} is not running"):
            bench.ask("stop", name=name)


def test_the_end_of_the_server_stops_the_study(bench: Bench) -> None:
    bench.carrier.away = {"north"}
    bench.submit()
    bench.wait("waiting")
    run = bench.desk._run
    bench.desk.handle_event(EventType.SYSTEM_END, bench.context)
    assert run is not None
    run.join(20)
    assert run.standing.state == "stopped"


def test_a_status_holds_the_events_that_are_new(bench: Bench) -> None:
    whole = bench.finish()["events"]
    for since in range(6):
        status = bench.ask("status", name="tiny", since=since)
        assert (status["events"], status["count"]) == (whole[since:], 4)


def test_whoever_is_told_of_the_end_was_told_of_every_event(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.finish()
    run = bench.desk._run
    assert run is not None
    run.standing = Standing("running")

    def ends_meanwhile(folder: Path) -> list[Event]:
        events = read_history(folder)[:-1]
        run.standing = Standing("finished")
        return events

    monkeypatch.setattr(desks, "read_history", ends_meanwhile)
    status = bench.ask("status", name="tiny")
    assert status["count"] == 3
    assert status["state"] == "running", "or the last event would never be asked for"


def test_what_hospitals_are_at_is_in_the_status(bench: Bench) -> None:
    bench.finish()
    run = bench.desk._run
    assert run is not None
    run.standing = Standing("running", "", "training", 1, 4, {"north": "train 40 %"})
    status = bench.ask("status", name="tiny")
    assert (status["step"], status["done"], status["total"]) == ("training", 1, 4)
    assert status["hospitals"] == {"north": "train 40 %"}


def test_after_a_restart_the_history_says_where_studies_stand(bench: Bench) -> None:
    bench.finish("whole")
    bench.carrier.fails = lambda hospital, kind: "Busy." if kind == TrainRequest.kind else ""
    bench.submit("broken")
    bench.wait("failed", name="broken")
    bench.carrier.fails = lambda hospital, kind: ""
    bench.finish("half")
    bench.carrier.away = {"north"}
    bench.submit("never")
    bench.wait("waiting", name="never")
    history = arm_path(study_folder(bench.kit, "half"), quick_submission("half").study) / HISTORY_NAME
    history.write_text("".join(history.read_text().splitlines(keepends=True)[:-1]))

    bench.restart()

    assert bench.ask("studies")["studies"] == [
        {"study": "broken", "state": "failed"},
        {"study": "half", "state": "interrupted"},
        {"study": "never", "state": "interrupted"},
        {"study": "whole", "state": "finished"},
    ]
    broken = bench.ask("status", name="broken")
    assert "only 0 hospitals" in broken["reason"] and broken["hospitals"] == {}
    assert bench.ask("status", name="never")["events"] == []
    bench.carrier.away = set()
    bench.ask("resume", name="half")
    assert bench.wait("finished", name="half")["count"] == 4


def test_a_folder_without_a_submission_is_no_study(bench: Bench) -> None:
    (bench.kit.studies / "torn").mkdir(parents=True)
    assert bench.ask("studies") == {"studies": []}
    for what in ("status", "resume"):
        with pytest.raises(RoundError, match="has no study 'torn'"):
            bench.ask(what, name="torn")
    bench.finish("torn")


@pytest.mark.parametrize("file", ["history", "rounds", "best_round"])
def test_results_are_fetched_in_pieces(bench: Bench, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    status = bench.finish()
    monkeypatch.setattr(desks, "FETCH_BYTES", 300)
    content, size, name = b"", 1, ""
    while len(content) < size:
        piece = bench.ask("fetch", name="tiny", file=file, start=len(content))
        size, name = piece["size"], piece["name"]
        assert 0 < len(base64.b64decode(piece["content"])) <= 300
        content += base64.b64decode(piece["content"])
    arm = arm_path(study_folder(bench.kit, "tiny"), quick_submission().study)
    number = {"rounds": 2, "best_round": status["events"][-1]["best_round"]}.get(file, 0)
    path = checkpoint_path(arm, number) if number else arm / HISTORY_NAME
    assert (content, name) == (path.read_bytes(), path.name)
    assert bench.ask("fetch", name="tiny", file=file, start=size)["content"] == ""


def test_the_best_round_is_another_file_than_the_last(bench: Bench) -> None:
    bench.finish(training={"patience": 5})
    run = bench.desk._run
    assert run is not None
    history = run.arm / HISTORY_NAME
    *lines, end = history.read_text().splitlines()
    history.write_text("\n".join([*lines, end.replace('"best_round": 2', '"best_round": 1'), ""]))
    names = [bench.ask("fetch", name="tiny", file=file)["name"] for file in ("rounds", "best_round")]
    assert names == ["round-0002.safetensors", "round-0001.safetensors"]


@pytest.mark.parametrize(
    "file",
    [
        "../../submission.bin",
        "rounds/round-0002.safetensors",
        "roster.json",
        "/etc/passwd",
        "",
        "HISTORY",
        "submission",
        "identity.key",
    ],
)
def test_only_results_are_fetched_and_only_by_their_names(bench: Bench, file: str) -> None:
    bench.finish()
    with pytest.raises(RoundError, match=r"has no .* to fetch"):
        bench.ask("fetch", name="tiny", file=file)


def test_before_the_end_there_is_a_history_and_no_network(bench: Bench) -> None:
    bench.carrier.away = {"north"}
    bench.submit()
    bench.wait("waiting")
    with pytest.raises(HistoryError, match="No history"):
        bench.ask("fetch", name="tiny", file="rounds")
    bench.carrier.fails = lambda hospital, kind: "Busy." if kind == TrainRequest.kind else ""
    bench.carrier.away = set()
    bench.wait("failed")
    with pytest.raises(RoundError, match=r"has no rounds to fetch\. It has not finished"):
        bench.ask("fetch", name="tiny", file="rounds")
    assert bench.ask("fetch", name="tiny", file="history")["size"] > 0


@pytest.mark.parametrize(
    "name", ["../hospitals", "..", ".", "", "tiny/", "./tiny", "/tmp", "tiny\0", "x" * 999]
)
def test_no_name_leads_out_of_the_folder_of_studies(bench: Bench, name: str) -> None:
    bench.finish()
    (bench.kit.folder / SUBMISSION_NAME).write_bytes(encode(quick_submission("outside")))
    for what, more in (("status", {}), ("resume", {}), ("fetch", {"file": "history"})):
        with pytest.raises(RoundError, match=r"has no study .*It has: tiny"):
            bench.ask(what, name=name, **more)


def test_a_submitted_name_cannot_lead_out_either(bench: Bench) -> None:
    submission = quick_submission()
    settings = submission.settings.replace('"tiny"', '"../tiny"')
    forged = dataclasses.replace(submission, settings=settings)
    bench.upload(encode(forged))
    answer = bench.command("fedlens submit", {"upload": "u"})
    assert answer["error"]["code"] == 2 and "../tiny" in answer["error"]["what"]
    assert not bench.kit.studies.exists() and not (bench.kit.folder / "tiny").exists()


def test_an_answer_travels_as_json(bench: Bench) -> None:
    assert bench.command("fedlens studies", {}) == {"studies": []}
    assert bench.command("fedlens studies") == {"studies": []}
    bench.finish()
    assert bench.command("fedlens status", {"name": "tiny", "since": 3})["events"][0]["event"] == "end"


@pytest.mark.parametrize(
    ("line", "asked", "what", "code"),
    [
        ("fedlens status", {"name": "none"}, "The coordinator has no study 'none'.", 5),
        ("fedlens submit", {"upload": "u"}, "The submission did not arrive whole.", 8),
        ("fedlens", {}, "The coordinator knows no command ''.", 8),
        ("fedlens rm", {}, "The coordinator knows no command 'rm'.", 8),
        ("fedlens answer", {}, "The coordinator knows no command 'answer'.", 8),
    ],
)
def test_a_refusal_travels_with_its_three_voices_and_its_code(
    bench: Bench, line: str, asked: dict[str, Any], what: str, code: int
) -> None:
    error = bench.command(line, asked)["error"]
    assert (error["what"], error["code"]) == (what, code)
    assert set(error) == {"what", "why", "fix", "code"}


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("fedlens status", {}),
        ("fedlens status", {"name": "tiny", "more": 1}),
        ("fedlens status", {"name": ["tiny"]}),
        ("fedlens status", {"name": "tiny", "since": "x"}),
        ("fedlens upload", {"upload": "u", "content": "A"}),
        ("fedlens upload", {"upload": {}, "content": ""}),
        ("fedlens fetch", {"name": "tiny", "file": "history", "start": -1}),
        ("fedlens fetch", {"name": "tiny", "file": "history", "start": "1"}),
        ("fedlens fetch", {"name": "tiny", "file": {}}),
    ],
)
def test_a_command_that_makes_no_sense_fails_by_itself_alone(
    bench: Bench, line: str, asked: dict[str, Any]
) -> None:
    bench.finish()
    error = bench.command(line, asked)["error"]
    assert error["what"] and error["code"] in (5, 8)
    assert bench.command("fedlens studies")["studies"] == [{"study": "tiny", "state": "finished"}]


def test_a_file_that_is_gone_is_an_error_and_not_the_end(bench: Bench) -> None:
    bench.finish()
    run = bench.desk._run
    assert run is not None
    checkpoint_path(run.arm, 2).unlink()
    error = bench.command("fedlens fetch", {"name": "tiny", "file": "rounds"})["error"]
    assert error["code"] == 8 and "round-0002.safetensors" in error["what"]


def test_flare_asks_its_own_rights_before_any_command(bench: Bench) -> None:
    module: CommandModule = bench.commands
    (spec,) = module.get_spec().cmd_specs
    assert spec.name == "fedlens"
    assert spec.authz_func(FakeConnection({}), ["fedlens", "studies"]) == PreAuthzReturnCode.REQUIRE_AUTHZ


@pytest.mark.parametrize(
    ("reply", "heard"),
    [
        (None, None),
        (Message({MessageHeaderKey.RETURN_CODE: ReturnCode.TIMEOUT, STATE: "done"}, b"x"), None),
        (Message({}, b"x"), None),
        (Message({MessageHeaderKey.RETURN_CODE: ReturnCode.OK, STATE: "done"}, b"x"), ("done", b"x")),
        (Message({MessageHeaderKey.RETURN_CODE: ReturnCode.OK, STATE: "here"}, None), ("here", b"")),
        (Message({MessageHeaderKey.RETURN_CODE: ReturnCode.OK, STATE: "done"}, 1 << 40), ("done", b"")),
        (
            Message({MessageHeaderKey.RETURN_CODE: ReturnCode.OK, STATE: "done"}, bytearray(2)),
            ("done", b"\0\0"),
        ),
    ],
)
def test_only_what_flare_delivered_is_an_answer(reply: Message, heard: tuple[str, bytes] | None) -> None:
    class Cell:
        def send_request(self, **given: Any) -> Any:
            assert (given["channel"], given["topic"], given["target"]) == (CHANNEL, "ask", "north")
            assert (given["timeout"], given["request"].payload) == (7.0, b"content")
            return reply

    answer = CellCarrier(Cell()).call("north", "ask", {"a": 1}, b"content", 7.0)
    assert (answer and (answer[0][STATE], answer[1])) == heard
