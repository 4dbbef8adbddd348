"""The engine between machines, against relays that follow a script."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlens.deployment.envelope import Ask, content_digest, sign_answer
from fedlens.deployment.headers import (
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
from fedlens.engines import nvflare
from fedlens.engines.engine import Reply
from fedlens.engines.nvflare import FlareEngine, Headers
from fedlens.errors import StoppedError
from fedlens.protocol.roster import COORDINATOR, Identity, Roster
from fedlens.study import NetworkSettings

NAMES = ("north", "south", "east", "west")
STUDY_DIGEST = "5" * 64
IDENTITIES = {name: Identity.generate(name) for name in (*NAMES, COORDINATOR)}
ROSTER = Roster.draft({name: IDENTITIES[name].public() for name in NAMES}, IDENTITIES[COORDINATOR].public())

Replied = tuple[Headers, bytes] | None


@dataclass(frozen=True)
class Call:
    hospital: str
    topic: str
    headers: Headers
    content: bytes
    seconds: float


Step = Callable[[Call], Replied]
"""What a hospital's relay says to one call."""


def silent(call: Call) -> Replied:
    return None


def working(call: Call) -> Replied:
    return {STATE: WORKING, STEP: "train", PERCENT: 40}, b""


def unknown(call: Call) -> Replied:
    return {STATE: UNKNOWN}, b""


def done(call: Call, *, by: str = "", content: bytes = b"", sent: bytes = b"") -> Replied:
    """A signed answer: who it is from and what it is to; ``by`` signs it, and ``sent`` comes instead."""
    content = content or f"{call.hospital} answers".encode()
    identity = Identity(call.hospital, IDENTITIES[by or call.hospital].key)
    signature = sign_answer(identity, call.headers[ERRAND], False, content_digest(content))
    return {STATE: DONE, SIGNATURE: signature.hex()}, sent or content


def failed(call: Call) -> Replied:
    signature = sign_answer(
        IDENTITIES[call.hospital], call.headers[ERRAND], True, content_digest(b"Its disk is full.")
    )
    return {STATE: FAILED, ERROR: "Its disk is full.", SIGNATURE: signature.hex()}, b""


def saying(headers: Headers, content: bytes = b"") -> Step:
    return lambda call: (headers, content)


class ScriptedCarrier:
    """Each ask or fetch of a hospital takes the next step of its script; the last one is repeated."""

    def __init__(self, **scripts: Sequence[Step]) -> None:
        self.scripts = {name: list(scripts.get(name, [done])) for name in NAMES}
        self.pings: dict[str, bool] = dict.fromkeys(NAMES, True)
        self.calls: list[Call] = []
        self._lock = threading.Lock()

    def call(self, hospital: str, topic: str, headers: Headers, content: bytes, seconds: float) -> Replied:
        call = Call(hospital, topic, headers, content, seconds)
        with self._lock:
            self.calls.append(call)
            if topic == "ping":
                return ({STATE: HERE}, b"") if self.pings[hospital] else None
            if topic == "cancel":
                return {STATE: FAILED}, b""
            script = self.scripts[hospital]
            step = script.pop(0) if len(script) > 1 else script[0]
        return step(call)

    def of(self, hospital: str) -> list[Call]:
        return [call for call in self.calls if call.hospital == hospital]

    def topics(self, hospital: str) -> list[str]:
        return [call.topic for call in self.of(hospital)]


@dataclass
class Bench:
    """An engine over a script, and what it told."""

    carrier: Any
    settings: dict[str, float] = field(default_factory=dict)
    told: list[tuple[str, str, int]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.engine = FlareEngine(
            ROSTER,
            IDENTITIES[COORDINATOR],
            STUDY_DIGEST,
            self.carrier,
            NetworkSettings(**{"grace": 0.0, "deadline": 5.0, "wait": 0.0, **self.settings}),
            told=lambda *what: self.told.append(what),
            stop=self.stop,
        )

    def ask(self, *names: str, **more: Any) -> list[Reply]:
        return list(self.engine.exchange(names or NAMES, more.pop("request", b"request"), **more))


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvflare, "_PAUSE_SECONDS", 0.001)


def test_the_roster_keeps_its_order() -> None:
    assert Bench(ScriptedCarrier()).engine.hospitals == NAMES


def test_replies_come_in_the_order_asked_however_the_hospitals_race() -> None:
    finished: list[str] = []
    turns = {name: threading.Event() for name in NAMES}
    turns["east"].set()

    def in_turn(then: str) -> Step:
        def step(call: Call) -> Replied:
            assert turns[call.hospital].wait(5)
            finished.append(call.hospital)
            if then:
                turns[then].set()
            return done(call)

        return step

    carrier = ScriptedCarrier(east=[in_turn("north")], north=[in_turn("west")], west=[in_turn("")])
    replies = Bench(carrier).ask("west", "north", "east")

    assert finished == ["east", "north", "west"]
    assert replies == [
        Reply("west", b"west answers"),
        Reply("north", b"north answers"),
        Reply("east", b"east answers"),
    ]
    assert carrier.of("south") == []


def test_all_hospitals_work_at_the_same_time() -> None:
    together = threading.Barrier(len(NAMES), timeout=5)

    def meet(call: Call) -> Replied:
        together.wait()
        return done(call)

    assert all(reply.content for reply in Bench(ScriptedCarrier(**{name: [meet] for name in NAMES})).ask())


def test_nobody_asked_is_no_reply() -> None:
    carrier = ScriptedCarrier()
    assert list(Bench(carrier).engine.exchange([], b"request")) == []
    assert carrier.calls == []


def test_an_ask_is_signed_for_its_hospital_study_and_content() -> None:
    carrier = ScriptedCarrier()
    Bench(carrier).ask("north", "south", own={"north": b"for north"})

    (north,), (south,) = carrier.of("north"), carrier.of("south")
    assert (north.content, north.headers[OWN]) == (b"requestfor north", 9)
    assert (south.content, south.headers[OWN]) == (b"request", 0)
    assert north.headers[ERRAND] != south.headers[ERRAND]
    assert 0 < north.headers[WAIT] < north.seconds, "a relay must answer before the call is given up"
    for call, own in ((north, b"for north"), (south, b"")):
        ask = Ask(
            call.headers[ERRAND],
            STUDY_DIGEST,
            call.hospital,
            content_digest(b"request"),
            content_digest(own),
        )
        ask.check(ROSTER, bytes.fromhex(call.headers[SIGNATURE]))
        assert call.headers[STUDY] == STUDY_DIGEST


def test_no_errand_is_used_twice() -> None:
    carrier = ScriptedCarrier()
    bench = Bench(carrier)
    bench.ask()
    bench.ask()
    assert len({call.headers[ERRAND] for call in carrier.calls}) == 2 * len(NAMES)


def test_a_request_is_sent_until_it_arrived_and_then_only_fetched() -> None:
    carrier = ScriptedCarrier(north=[silent, silent, working, silent, working, done])
    (reply,) = Bench(carrier, {"grace": 5}).ask("north", own={"north": b"own"})

    assert reply == Reply("north", b"north answers")
    assert carrier.topics("north") == ["ask", "ask", "ask", "fetch", "fetch", "fetch"]
    assert [call.content for call in carrier.of("north")] == [b"requestown"] * 3 + [b""] * 3
    assert len({call.headers[ERRAND] for call in carrier.of("north")}) == 1


def test_how_far_each_hospital_is_is_told() -> None:
    bench = Bench(ScriptedCarrier(north=[working, saying({STATE: WORKING}), done]))
    bench.ask("north")
    assert bench.told == [("north", "train", 40), ("north", "", 0)]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({STEP: "x" * 500, PERCENT: 10**9}, ("x" * 40, 100)),
        ({STEP: "\x1b[2Jtrain\n", PERCENT: -3}, ("[2Jtrain", 0)),
        ({STEP: ["train"], PERCENT: "40"}, ("['train']", 0)),
        ({STEP: None, PERCENT: None}, ("None", 0)),
    ],
)
def test_what_a_relay_says_of_progress_is_not_trusted(said: Headers, told: tuple[str, int]) -> None:
    bench = Bench(ScriptedCarrier(north=[saying({STATE: WORKING, **said}), done]))
    assert bench.ask("north") == [Reply("north", b"north answers")]
    assert bench.told == [("north", *told)]


def test_a_hospital_that_stays_away_is_given_up_after_the_grace_and_the_others_are_not() -> None:
    bench = Bench(ScriptedCarrier(south=[silent]), {"grace": 0.05})
    began = time.monotonic()
    replies = bench.ask()
    assert 0.05 < time.monotonic() - began < 2
    assert [reply.hospital for reply in replies if reply.content] == ["north", "east", "west"]
    assert replies[1].error == "It was out of reach for 0 seconds."


def test_the_grace_begins_anew_whenever_the_relay_was_heard() -> None:
    def late(call: Call) -> Replied:
        time.sleep(0.15)
        return None

    script: list[Step] = [step for _ in range(4) for step in (late, working)]
    bench = Bench(ScriptedCarrier(north=[*script, done]), {"grace": 0.4})
    assert bench.ask("north") == [Reply("north", b"north answers")]


def test_a_suspect_is_asked_again_only_after_a_ping_came_back() -> None:
    carrier = ScriptedCarrier(south=[silent, done])
    bench = Bench(carrier)
    bench.ask("south")
    carrier.pings["south"] = False

    (away,) = bench.ask("south")
    assert away == Reply("south", None, "It is still out of reach.")
    carrier.pings["south"] = True
    (back,) = bench.ask("south")
    assert back == Reply("south", b"south answers")
    bench.ask("south")
    assert carrier.topics("south") == ["ask", "ping", "ping", "ask", "ask"]


def test_who_is_reachable_is_asked_in_roster_order_and_the_others_are_suspects() -> None:
    carrier = ScriptedCarrier()
    carrier.pings |= {"south": False, "west": False}
    bench = Bench(carrier)

    assert bench.engine.reachable() == ("north", "east")
    assert [reply.error for reply in bench.ask()] == [
        "",
        "It is still out of reach.",
        "",
        "It is still out of reach.",
    ]
    carrier.pings |= {"south": True}
    assert bench.engine.reachable() == ("north", "south", "east")


def test_a_relay_that_answers_a_ping_with_something_else_is_not_there() -> None:
    carrier = ScriptedCarrier()
    carrier.call = lambda *args: ({STATE: UNKNOWN}, b"")  # type: ignore[method-assign]
    assert Bench(carrier).engine.reachable() == ()


def test_who_is_not_done_by_the_deadline_is_told_so_and_missing() -> None:
    def slow(call: Call) -> Replied:
        time.sleep(0.01)
        return working(call)

    carrier = ScriptedCarrier(north=[slow])
    replies = Bench(carrier, {"deadline": 0.05}).ask("north", "south")

    assert replies == [
        Reply("north", None, "It was not done after 0 seconds."),
        Reply("south", b"south answers"),
    ]
    *before, cancelled = carrier.of("north")
    assert cancelled.topic == "cancel" and len(before) >= 2
    assert cancelled.headers[ERRAND] == before[0].headers[ERRAND]
    # Not a suspect: its relay was heard.
    carrier.scripts["north"] = [done]
    assert Bench(carrier).ask("north") == [Reply("north", b"north answers")]
    assert "ping" not in carrier.topics("north")


def test_a_hospital_that_was_started_again_has_failed_for_this_exchange() -> None:
    bench = Bench(ScriptedCarrier(north=[working, unknown, done]))
    (reply,) = bench.ask("north")
    assert reply.content is None and "no longer knows what it was asked" in reply.error
    assert bench.ask("north") == [Reply("north", b"north answers")]


@pytest.mark.parametrize("said", [{}, {STATE: None}, {STATE: "nonsense"}, {STATE: HERE}, {STATE: [DONE]}])
def test_a_relay_that_talks_nonsense_costs_its_hospital_only(said: Headers) -> None:
    replies = Bench(ScriptedCarrier(north=[saying(said, b"x")])).ask("north", "south")
    assert replies[0].content is None and replies[0].error
    assert replies[1] == Reply("south", b"south answers")


def test_a_hospitals_own_reason_is_handed_on() -> None:
    (reply,) = Bench(ScriptedCarrier(north=[failed])).ask("north")
    assert reply == Reply("north", None, "Its disk is full.")


def test_a_relays_own_trouble_needs_no_signature() -> None:
    said = {STATE: FAILED, ERROR: "The hospital's service ended in the middle of its work."}
    (reply,) = Bench(ScriptedCarrier(north=[saying(said)])).ask("north")
    assert reply == Reply("north", None, said[ERROR])


def failed_by_another(call: Call) -> Replied:
    told = failed(call)
    assert told is not None
    return {**told[0], ERROR: "Another reason."}, b""


def for_another_errand(call: Call) -> Replied:
    signature = sign_answer(IDENTITIES[call.hospital], "0" * 32, False, content_digest(b"old"))
    return {STATE: DONE, SIGNATURE: signature.hex()}, b"old"


def failure_as_answer(call: Call) -> Replied:
    """The signed reason of a failure, passed off as an answer."""
    told = failed(call)
    assert told is not None
    return {STATE: DONE, SIGNATURE: told[0][SIGNATURE]}, b"Its disk is full."


@pytest.mark.parametrize(
    "step",
    [
        lambda call: done(call, by="south"),
        lambda call: done(call, by=COORDINATOR),
        lambda call: done(call, content=b"signed", sent=b"altered"),
        saying({STATE: DONE}, b"unsigned"),
        saying({STATE: DONE, SIGNATURE: "zz"}, b"no hexadecimal"),
        saying({STATE: DONE, SIGNATURE: None}, b"no text"),
        for_another_errand,
        failure_as_answer,
        failed_by_another,
    ],
)
def test_an_answer_that_is_not_signed_by_its_hospital_is_not_used(step: Step) -> None:
    replies = Bench(ScriptedCarrier(north=[step])).ask("north", "south")
    assert replies == [
        Reply("north", None, "Its answer is not signed with its key; it was not looked at."),
        Reply("south", b"south answers"),
    ]


def test_stopping_ends_an_exchange_and_tells_who_still_works() -> None:
    began = threading.Event()

    def begin(call: Call) -> Replied:
        began.set()
        return working(call)

    carrier = ScriptedCarrier(north=[begin], south=[silent])
    bench = Bench(carrier, {"grace": 60, "deadline": 60})
    caught: list[BaseException] = []

    def run() -> None:
        try:
            bench.ask("east", "north", "south")
        except StoppedError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert began.wait(5)
    bench.stop.set()
    thread.join(5)
    assert not thread.is_alive()
    assert [str(error) for error in caught] == ["The study was stopped. Go on with: fedlens resume"]
    assert carrier.topics("north")[-1] == carrier.topics("south")[-1] == "cancel"


def test_a_stopped_engine_asks_nobody() -> None:
    carrier = ScriptedCarrier()
    bench = Bench(carrier)
    bench.stop.set()
    with pytest.raises(StoppedError):
        bench.ask()
    assert not {call.topic for call in carrier.calls} & {"ask", "fetch"}


def test_whoever_takes_no_more_replies_is_not_held_by_the_slowest_hospital() -> None:
    carrier = ScriptedCarrier(south=[working], west=[silent])
    bench = Bench(carrier, {"grace": 60, "deadline": 60})
    replies = bench.engine.exchange(["north", "south", "west"], b"request")
    assert isinstance(replies, Iterator) and next(replies).hospital == "north"
    began = time.monotonic()
    replies.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 2
    assert carrier.topics("south")[-1] == carrier.topics("west")[-1] == "cancel"


def test_no_reply_is_held_once_it_was_taken() -> None:
    release = threading.Event()
    gone: list[bool] = []

    def wait(call: Call) -> Replied:
        assert release.wait(5)
        gc.collect()
        gone.append(taken() is None)
        return done(call)

    replies = Bench(ScriptedCarrier(south=[wait])).engine.exchange(["north", "south"], b"request")
    taken = weakref.ref(next(replies))
    release.set()
    assert next(replies).hospital == "south"
    assert gone == [True]


STEPS: dict[str, Step] = {
    "silent": silent,
    "working": working,
    "done": done,
    "failed": failed,
    "unknown": unknown,
    "forged": lambda call: done(call, by=COORDINATOR),
    "nonsense": saying({}),
}


@settings(max_examples=40, deadline=None)
@given(
    st.permutations(NAMES).flatmap(lambda names: st.integers(1, 4).map(lambda count: names[:count])),
    st.dictionaries(
        st.sampled_from(NAMES), st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=6), max_size=4
    ),
    st.dictionaries(st.sampled_from(NAMES), st.booleans()),
)
def test_every_schedule_gives_just_one_reply_for_each_name(
    names: list[str], schedule: dict[str, list[str]], there: dict[str, bool]
) -> None:
    carrier = ScriptedCarrier(**{name: [STEPS[step] for step in steps] for name, steps in schedule.items()})
    carrier.pings |= there
    bench = Bench(carrier, {"grace": 0.01, "deadline": 0.03})

    first, second = bench.ask(*names), bench.ask(*names)
    for replies in (first, second):
        assert [reply.hospital for reply in replies] == names
        for reply in replies:
            # Only a signed answer is ever content, and whoever gave none says why.
            assert (reply.content == f"{reply.hospital} answers".encode()) is (reply.error == "")
            assert (reply.content is None) is bool(reply.error)
            steps = schedule.get(reply.hospital, ["done"])
            assert reply.content is None or "done" in steps
    heard = {name for name in names if schedule.get(name, ["done"])[0] == "done"}
    assert {reply.hospital for reply in first if reply.content} >= heard
