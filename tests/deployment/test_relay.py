"""The relay with FLARE's own messages, before a real service on a real socket."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, ReturnCode
from nvflare.fuel.f3.cellnet.fqcn import FQCN
from nvflare.fuel.f3.message import Message

from fedlens.deployment import relay as relays
from fedlens.deployment import service as services
from fedlens.deployment.envelope import Ask, check_answer, content_digest
from fedlens.deployment.headers import (
    CHANNEL,
    DONE,
    ERRAND,
    ERROR,
    FAILED,
    HERE,
    OWN,
    PERCENT,
    SIGNATURE,
    STATE,
    STEP,
    STUDY,
    UNKNOWN,
    WAIT,
    WORKING,
)
from fedlens.deployment.kit import Kit
from fedlens.deployment.members import MEMBERS_NAME, save_members
from fedlens.deployment.notices import notices_path
from fedlens.deployment.pipe import connect, listen, receive_frame, send_frame
from fedlens.deployment.relay import Relay
from fedlens.deployment.service import serve
from fedlens.engines.engine import Reply
from fedlens.engines.nvflare import FlareEngine, Headers
from fedlens.errors import DataError
from fedlens.progress import Progress
from fedlens.protocol.roster import COORDINATOR, Identity
from fedlens.study import NetworkSettings

from .in_process import make_kits, wait_for

STUDY_DIGEST = "5" * 64
Answer = Callable[[str, bytes, bytes, Progress], bytes]


class Service:
    """A hospital's service in a thread, with an answer of the test's own."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._thread: threading.Thread | None = None
        self._server: socket.socket | None = None
        self.asked: list[tuple[str, bytes, bytes]] = []
        self.hung_up = threading.Event()

    def start(self, answer: Answer) -> None:
        """Listen, in a thread of its own; what the service raises ends it as a killed process ends."""

        def recorded(study: str, request: bytes, own: bytes, progress: Progress) -> bytes:
            self.asked.append((study, request, own))
            try:
                return answer(study, request, own, progress)
            except BrokenPipeError:
                self.hung_up.set()
                raise

        def run() -> None:
            with contextlib.suppress(OSError, SystemExit):
                serve(self._kit, recorded)

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def listens(self, path: Path) -> socket.socket:
        self._server = listen(path)
        return self._server

    def stop(self) -> None:
        if self._thread is not None:
            wait_for(lambda: self._server, "the service listens")
            assert self._server is not None
            with contextlib.suppress(OSError):
                self._server.shutdown(socket.SHUT_RDWR)
            self._thread.join(10)
            assert not self._thread.is_alive()


class FakeCell:
    def __init__(self) -> None:
        self.registered: dict[str, Any] = {}

    def register_request_cb(self, **given: Any) -> None:
        self.registered = given


class FakeContext:
    """What FLARE tells a component at its start."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self.cell = FakeCell()

    def get_prop(self, key: str) -> str:
        assert key == FLContextKey.WORKSPACE_ROOT
        return str(self._kit.flare)

    def get_engine(self) -> FakeContext:
        return self

    def get_cell(self) -> FakeCell:
        return self.cell


class Hospital:
    """One hospital's relay and service, and the coordinator's words to them."""

    def __init__(self, kits: dict[str, Kit]) -> None:
        self.kits = kits
        self.kit = kits["north"]
        self.service = Service(self.kit)
        self.context = FakeContext(self.kit)
        self.relay = Relay()
        self.relay.handle_event(EventType.SYSTEM_START, self.context)
        self.last = ""

    def say(self, topic: str, errand: str = "", content: bytes = b"", **more: Any) -> tuple[Headers, bytes]:
        """One message of the coordinator, and what the relay replies."""
        headers = {MessageHeaderKey.ORIGIN: FQCN.ROOT_SERVER, MessageHeaderKey.TOPIC: topic, ERRAND: errand}
        reply = self.relay.receive(Message({**headers, **more}, content))
        assert reply.get_header(MessageHeaderKey.RETURN_CODE) == ReturnCode.OK
        return dict(reply.headers), bytes(reply.payload)

    def ask(self, errand: str, request: bytes = b"request", own: bytes = b"", wait: float = 0) -> Any:
        self.last = errand
        ask = Ask(errand, STUDY_DIGEST, "north", content_digest(request), content_digest(own))
        signature = ask.signed_by(self.kits[COORDINATOR].identity()).hex()
        more = {STUDY: STUDY_DIGEST, SIGNATURE: signature, OWN: len(own), WAIT: wait}
        return self.say("ask", errand, request + own, **more)

    def fetch(self, errand: str, wait: float = 10) -> tuple[Headers, bytes]:
        more: dict[str, Any] = {WAIT: wait}
        return self.say("fetch", errand, **more)

    def notices(self) -> str:
        return notices_path(self.kit.folder).read_text()


@pytest.fixture
def hospital(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hospital]:
    monkeypatch.setattr(services, "_SECONDS", 0.0)
    made = Hospital(make_kits(tmp_path, ["north", "south"]))
    monkeypatch.setattr(services, "listen", made.service.listens)
    yield made
    made.say("cancel", made.last)
    made.service.stop()


def echo(study: str, request: bytes, own: bytes, progress: Progress) -> bytes:
    return request[::-1] + own


class Slow:
    """Works, and says how far it is, until it may finish."""

    def __init__(self) -> None:
        self.finish = threading.Event()
        self.begun = threading.Event()

    def __call__(self, study: str, request: bytes, own: bytes, progress: Progress) -> bytes:
        self.begun.set()
        while not self.finish.wait(0.01):
            progress("train", 30, 90)
        return b"done " + request


def never(study: str, request: bytes, own: bytes, progress: Progress) -> bytes:
    raise AssertionError("the service was asked")


def test_the_relay_registers_at_flares_start_and_says_so(hospital: Hospital) -> None:
    registered = hospital.context.cell.registered
    assert (registered["channel"], registered["topic"]) == (CHANNEL, "*")
    assert registered["cb"] == hospital.relay.receive
    assert "connected to the coordinator at localhost:8002" in hospital.notices()


def test_a_ping_is_answered_without_a_service(hospital: Hospital) -> None:
    assert hospital.say("ping")[0][STATE] == HERE


def test_an_answer_comes_signed_through_both_halves(hospital: Hospital) -> None:
    hospital.service.start(echo)
    headers, content = hospital.ask("a", b"request", b"mine", wait=10)

    assert (headers[STATE], content) == (DONE, b"tseuqermine")
    assert hospital.service.asked == [(STUDY_DIGEST, b"request", b"mine")]
    roster = hospital.kit.members().roster(["north"])
    check_answer(roster, bytes.fromhex(headers[SIGNATURE]), "north", "a", False, content_digest(content))
    assert "service of north is ready" in hospital.notices()


def test_an_answer_is_kept_until_it_was_fetched_and_after(hospital: Hospital) -> None:
    hospital.service.start(echo)
    first = hospital.ask("a", wait=10)
    assert hospital.fetch("a") == hospital.fetch("a") == first


def test_a_call_returns_when_the_answer_is_there_and_not_later(hospital: Hospital) -> None:
    hospital.service.start(echo)
    began = time.monotonic()
    assert hospital.ask("a", wait=30)[0][STATE] == DONE
    assert time.monotonic() - began < 10


def test_while_it_works_it_says_how_far_it_is_in_percent(hospital: Hospital) -> None:
    slow = Slow()
    hospital.service.start(slow)
    assert hospital.ask("a")[0][STATE] == WORKING
    said = wait_for(
        lambda: (told := hospital.fetch("a", wait=0)[0]).get(STEP) and told, "progress is reported"
    )
    assert (said[STATE], said[STEP], said[PERCENT]) == (WORKING, "train", 33)
    slow.finish.set()
    assert hospital.fetch("a")[1] == b"done request"


def test_the_same_ask_twice_is_one_errand(hospital: Hospital) -> None:
    slow = Slow()
    hospital.service.start(slow)
    hospital.ask("a")
    assert slow.begun.wait(10)
    hospital.ask("a")
    slow.finish.set()
    assert hospital.ask("a", wait=10) == hospital.fetch("a")
    assert hospital.service.asked == [(STUDY_DIGEST, b"request", b"")]
    assert not hospital.service.hung_up.is_set()


def test_a_new_ask_takes_the_place_of_the_old_which_the_service_gives_up(hospital: Hospital) -> None:
    slow = Slow()
    hospital.service.start(slow)
    hospital.ask("a", b"old")
    assert slow.begun.wait(10)

    hospital.ask("b", b"new")

    assert hospital.service.hung_up.wait(10)
    assert hospital.fetch("a", wait=0)[0][STATE] == UNKNOWN
    slow.finish.set()
    assert hospital.fetch("b")[1] == b"done new"
    assert "the coordinator no longer waits for this answer" in hospital.notices()


def test_cancelling_ends_the_services_work(hospital: Hospital) -> None:
    slow = Slow()
    hospital.service.start(slow)
    hospital.ask("a")
    assert slow.begun.wait(10)

    hospital.say("cancel", "a")

    assert hospital.service.hung_up.wait(10)
    headers, _ = hospital.fetch("a")
    assert headers == {
        MessageHeaderKey.RETURN_CODE: ReturnCode.OK,
        STATE: FAILED,
        ERROR: "The coordinator no longer waits for it.",
    }


def test_an_errand_that_was_never_asked_is_unknown_and_cancels_nothing(hospital: Hospital) -> None:
    slow = Slow()
    hospital.service.start(slow)
    assert hospital.fetch("a")[0][STATE] == UNKNOWN
    hospital.ask("a")
    assert slow.begun.wait(10)
    assert hospital.say("cancel", "b")[0][STATE] == UNKNOWN
    slow.finish.set()
    assert hospital.fetch("a")[0][STATE] == DONE


def test_a_failure_comes_with_the_hospitals_signed_reason(hospital: Hospital) -> None:
    def fail(study: str, request: bytes, own: bytes, progress: Progress) -> bytes:
        raise DataError("An image is torn.", fix="Replace it.")

    hospital.service.start(fail)
    headers, content = hospital.ask("a", wait=10)
    assert (headers[STATE], headers[ERROR], content) == (FAILED, "An image is torn. Replace it.", b"")
    roster, reason = hospital.kit.members().roster(["north"]), content_digest(headers[ERROR].encode())
    check_answer(roster, bytes.fromhex(headers[SIGNATURE]), "north", "a", True, reason)
    # The service goes on after it.
    assert hospital.ask("b", wait=10)[0][STATE] == FAILED


def test_of_the_machines_own_troubles_only_the_kind_is_told(hospital: Hospital) -> None:
    def fail(study: str, request: bytes, own: bytes, progress: Progress) -> bytes:
        raise PermissionError(13, "Permission denied", "/data/patient-17.dcm")

    hospital.service.start(fail)
    headers, _ = hospital.ask("a", wait=10)
    assert headers[ERROR].startswith("The hospital's machine failed: PermissionError.")
    assert "patient-17" not in str(headers)
    assert "patient-17" in hospital.notices(), "its own log has the particulars"


def test_a_service_that_dies_in_the_middle_is_said_to_have(hospital: Hospital) -> None:
    def die(study: str, request: bytes, own: bytes, progress: Progress) -> bytes:
        raise SystemExit

    hospital.service.start(die)
    headers, _ = hospital.ask("a", wait=10)
    assert (headers[STATE], headers[ERROR]) == (
        FAILED,
        "The hospital's service ended in the middle of its work.",
    )
    assert SIGNATURE not in headers
    # Started again, it is asked as if nothing had been.
    hospital.service.stop()
    hospital.service.start(echo)
    assert hospital.ask("b", wait=10)[0][STATE] == DONE


def test_a_service_that_starts_late_is_waited_for(hospital: Hospital) -> None:
    assert hospital.ask("a", wait=0.3)[0][STATE] == WORKING
    hospital.service.start(echo)
    assert hospital.fetch("a")[1] == b"tseuqer"


def test_a_service_that_does_not_start_is_given_up(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays, "_START_SECONDS", 0.3)
    headers, _ = hospital.ask("a", wait=10)
    assert headers[STATE] == FAILED
    assert headers[ERROR].startswith("The hospital's service cannot be reached")


def test_an_errand_that_is_cancelled_before_the_service_is_there_never_reaches_it(hospital: Hospital) -> None:
    hospital.ask("a")
    hospital.say("cancel", "a")
    assert hospital.fetch("a")[0][ERROR] == "The coordinator no longer waits for it."
    hospital.service.start(never)
    time.sleep(0.3)
    assert hospital.service.asked == []


@pytest.mark.parametrize("origin", ["south", "server.job", "", None, "admin"])
def test_nobody_but_the_coordinator_is_answered(hospital: Hospital, origin: str | None) -> None:
    hospital.service.start(echo)
    hospital.ask("a", wait=10)
    for topic in ("ping", "ask", "fetch", "cancel"):
        headers, content = hospital.say(topic, "a", b"x", **{MessageHeaderKey.ORIGIN: origin})
        assert (headers[STATE], headers[ERROR]) == (FAILED, "Only the coordinator is answered.")
        assert content == b""
    assert len(hospital.service.asked) == 1


@pytest.mark.parametrize("change", ["content", "study", "errand", "signature", "none"])
def test_what_the_coordinator_did_not_sign_is_refused_before_it_is_looked_at(
    hospital: Hospital, change: str
) -> None:
    hospital.service.start(never)
    ask = Ask("a", STUDY_DIGEST, "north", content_digest(b"request"), content_digest(b""))
    signature = ask.signed_by(hospital.kits["south" if change == "signature" else COORDINATOR].identity())
    headers, _ = hospital.say(
        "ask",
        "b" if change == "errand" else "a",
        b"another" if change == "content" else b"request",
        **{
            STUDY: "6" * 64 if change == "study" else STUDY_DIGEST,
            SIGNATURE: "" if change == "none" else signature.hex(),
            OWN: 0,
            WAIT: 10,
        },
    )
    assert headers[STATE] == FAILED and "was not signed by it" in headers[ERROR]
    assert hospital.service.asked == []


def test_the_coordinators_key_that_counts_is_the_one_that_members_json_names_now(hospital: Hospital) -> None:
    hospital.service.start(echo)
    assert hospital.ask("a", wait=10)[0][STATE] == DONE
    members = hospital.kit.members()
    renewed = dataclasses.replace(members, coordinator=Identity.generate(COORDINATOR).public())
    save_members(hospital.kit.folder / MEMBERS_NAME, renewed)
    headers, _ = hospital.ask("b", wait=10)
    assert headers[STATE] == FAILED and "was not signed by it" in headers[ERROR]
    save_members(hospital.kit.folder / MEMBERS_NAME, members)
    assert hospital.ask("c", wait=10)[0][STATE] == DONE


@pytest.mark.parametrize("said", [{}, {STATE: "nonsense"}, {STATE: HERE}])
def test_a_service_that_says_nonsense_has_failed(hospital: Hospital, said: Headers) -> None:
    with listen(hospital.kit.socket) as server:
        hospital.ask("a")
        connection, _ = server.accept()
        with connection:
            receive_frame(connection)
            send_frame(connection, said)
            headers, _ = hospital.fetch("a")
    assert headers[STATE] == FAILED and "cannot be reached" in headers[ERROR]


@pytest.mark.parametrize("sent", [b"", b"\0\0\0\2{}", b"\xff" * 8, b"\0\0\0\x0e" + b'{"sizes": [0]}'])
def test_what_is_no_message_does_not_end_the_service(hospital: Hospital, sent: bytes) -> None:
    hospital.service.start(echo)
    wait_for(lambda: "is ready" in hospital.notices(), "the service listens")
    for _ in range(2):
        with connect(hospital.kit.socket) as client:
            client.sendall(sent)
    assert hospital.ask("a", wait=10)[0][STATE] == DONE
    assert hospital.notices().count("refused what came over the local socket") == 2


def test_the_engine_the_relay_and_the_service_understand_each_other(hospital: Hospital) -> None:
    class Wire:
        def call(
            self, hospital_name: str, topic: str, headers: Headers, content: bytes, seconds: float
        ) -> tuple[Headers, bytes] | None:
            assert hospital_name == "north"
            return hospital.say(topic, **{"errand": headers.get(ERRAND, ""), "content": content}, **headers)

    slow = Slow()
    hospital.service.start(slow)
    told: list[tuple[str, str, int]] = []

    def at(name: str, step: str, percent: int) -> None:
        told.append((name, step, percent))
        if step:
            slow.finish.set()

    engine = FlareEngine(
        hospital.kit.members().roster(["north"]),
        hospital.kits[COORDINATOR].identity(),
        STUDY_DIGEST,
        Wire(),
        NetworkSettings(),
        told=at,
    )
    assert engine.reachable() == ("north",)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedlens.engines.nvflare._WAIT_SECONDS", 0.05)
        replies = list(engine.exchange(["north"], b"request", {"north": b"own"}))
    assert replies == [Reply("north", b"done request")]
    assert hospital.service.asked == [(STUDY_DIGEST, b"request", b"own")]
    assert told[-1] == ("north", "train", 33)
