"""Whole studies of the coordinator, with hospitals in this process that are away, fail and come back."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedlens.arm_path import FEDERATED
from fedlens.arms import train_arm
from fedlens.coordinator.checkpoints import latest, read_checkpoint
from fedlens.coordinator.history import Event, read_history, without_seconds
from fedlens.deployment import study_run
from fedlens.deployment.headers import PERCENT, STATE, STEP, WORKING
from fedlens.deployment.kit import Kit
from fedlens.deployment.membership import Membership
from fedlens.deployment.session import make_submission
from fedlens.deployment.study_run import SUBMISSION_NAME, StudyRun, keep_submission
from fedlens.engines import nvflare
from fedlens.engines.nvflare import Headers
from fedlens.errors import ProtocolError, RoundError
from fedlens.files import write_text
from fedlens.preparation import prepare
from fedlens.protocol.codec import encode
from fedlens.protocol.messages import ExplanationTotals, JoinRequest, Parameters, TrainRequest
from fedlens.protocol.roster import COORDINATOR
from fedlens.sealing_files import ROSTER_NAME
from fedlens.study import Study

from .in_process import (
    NAMES,
    InProcessCarrier,
    QuickMembership,
    make_kits,
    make_study,
    new_key,
    quick_submission,
    wait_for,
)

PLAIN = {"mode": "off"}


@pytest.fixture(scope="module")
def expected(drawn: Path) -> dict[str, Parameters]:
    """Final weights of ``fedlens run`` over the pooled images, in the clear and sealed."""
    studies = {"plain": make_study(drawn, "plain", sealing=PLAIN), "sealed": make_study(drawn, "sealed")}
    weights = {}
    for name, study in studies.items():
        alone = study.model_copy(update={"output": drawn / f"run-{name}"})
        weights[name] = train_arm(prepare(alone), FEDERATED).rounds.parameters
    return weights


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_run, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(nvflare, "_PAUSE_SECONDS", 0.005)


class Federation:
    """The coordinator's kit, hospitals in this process, and studies by name.

    Hospitals have images where there are ``machines``, and else numbers that make a round quick.
    """

    def __init__(self, folder: Path, drawn: Path | None = None) -> None:
        self.kits: dict[str, Kit] = make_kits(folder / "kits", sealing="optional")
        self._drawn = drawn
        membership = Membership if drawn else QuickMembership
        self.carrier = InProcessCarrier(self.kits, (drawn or folder) / "machines", membership)

    def submit(self, name: str = "tiny", **changes: Any) -> StudyRun:
        if self._drawn:
            submission = make_submission(make_study(self._drawn, name, **changes))
        else:
            submission = quick_submission(name, **changes)
        keep_submission(self.kits[COORDINATOR], encode(submission))
        return self.again(name)

    def again(self, name: str = "tiny") -> StudyRun:
        """The study as a coordinator that was started again takes it up."""
        return StudyRun(self.kits[COORDINATOR], name, self.carrier)


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    """Without images, for what does not depend on them."""
    return Federation(tmp_path)


@pytest.fixture
def hospitals(tmp_path: Path, drawn: Path) -> Federation:
    """With images, and sealed unless a study says otherwise."""
    return Federation(tmp_path, drawn)


def weights(run: StudyRun) -> Parameters:
    path = latest(run.arm)
    assert path is not None
    return read_checkpoint(path).parameters


def same(one: Parameters, other: Parameters) -> bool:
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)


def events(run: StudyRun, kind: str = "") -> list[Event]:
    return [event for event in read_history(run.arm) if kind in ("", event["event"])]


@contextlib.contextmanager
def running(run: StudyRun) -> Iterator[StudyRun]:
    """The study in its thread, which must come to an end."""
    run.start()
    try:
        yield run
        run.join(60)
        assert not run.is_alive()
    finally:
        run.stop()
        run.join(10)


@pytest.mark.parametrize("mode", ["plain", "sealed"])
def test_a_study_ends_with_the_weights_of_one_machine_to_the_bit(
    hospitals: Federation, expected: dict[str, Parameters], mode: str
) -> None:
    run = hospitals.submit(mode, sealing=PLAIN if mode == "plain" else {})
    run.run()

    assert (run.standing.state, run.standing.reason, run.standing.hospitals) == ("finished", "", {})
    assert (run.standing.step, run.standing.done, run.standing.total) == ("rounds", 2, 2)
    assert same(weights(run), expected[mode])
    told = [event["event"] for event in events(run)]
    assert told == ["start", *(["segment"] if mode == "sealed" else []), "round", "round", "end"]
    start, end = events(run)[0], events(run)[-1]
    assert (start["study"], start["sealed"], start["hospitals"]) == (
        run.study.digest(),
        mode == "sealed",
        list(NAMES),
    )
    assert (end["reason"], end["rounds"]) == ("rounds", 2)


def test_a_sealed_study_sends_no_update_in_the_clear(hospitals: Federation) -> None:
    run = hospitals.submit(federation={"rounds": 1})
    run.run()
    assert run.standing.state == "finished"
    kinds = hospitals.carrier.kinds("north")
    assert kinds.count(JoinRequest.kind) == 2, "once to sign the roster, once to see everybody's signatures"
    assert "keys-request" in kinds and kinds.count("unmask-request") == 3
    for event in events(run, "round"):
        assert event["sealing"]["survivors"] == 4
        assert "loss" not in event["hospitals"]["north"]


def test_a_finished_study_that_is_resumed_is_only_read(federation: Federation) -> None:
    run = federation.submit()
    run.run()
    before, asked = weights(run), len(federation.carrier.asked)
    again = federation.again()
    again.run()
    assert again.standing.state == "finished" and same(weights(again), before)
    assert {kind for _, kind in federation.carrier.asked[asked:]} == {JoinRequest.kind}
    assert len(events(again, "end")) == 1


def test_a_hospital_that_is_away_at_first_is_waited_for(federation: Federation) -> None:
    federation.carrier.away = {"south", "west"}
    run = federation.submit(federation={"rounds": 1})
    with running(run):
        wait_for(lambda: run.standing.reason, "it waits")
        assert run.standing.state == "waiting"
        assert run.standing.reason == "2 of 4 hospitals are in reach; away: south, west"
        federation.carrier.away = {"west"}
        wait_for(lambda: run.standing.reason.endswith("away: west"), "one has come")
        assert federation.carrier.asked == []
        federation.carrier.away = set()
    assert (run.standing.state, run.standing.reason) == ("finished", "")


def test_what_it_waited_for_is_not_said_any_longer_once_it_runs(federation: Federation) -> None:
    federation.carrier.away = {"west"}
    run = federation.submit(federation={"rounds": 1})
    reasons: list[str] = []

    def notice(hospital: str, kind: str) -> str:
        if kind == TrainRequest.kind:
            reasons.append(run.standing.reason)
        return ""

    federation.carrier.fails = notice
    with running(run):
        wait_for(lambda: run.standing.reason, "it waits")
        federation.carrier.away = set()
    assert reasons == [""] * 4


def test_after_the_wait_the_study_stops_and_says_who_is_away(federation: Federation) -> None:
    federation.carrier.away = {"east"}
    run = federation.submit(network={"wait": 0.1})
    run.run()
    assert run.standing.state == "failed"
    assert run.standing.reason == "Waited 0 seconds for 4 hospitals; away: east."
    assert federation.carrier.asked == []
    # With the hospital back, it begins as if nothing had been.
    federation.carrier.away = set()
    again = federation.again()
    again.run()
    assert again.standing.state == "finished"


def test_no_round_begins_before_every_hospital_has_seen_the_signed_roster(federation: Federation) -> None:
    def leaves(hospital: str, kind: str) -> str:
        if federation.carrier.kinds("west") == [JoinRequest.kind]:
            federation.carrier.away = {"west"}
        return ""

    federation.carrier.fails = leaves
    run = federation.submit()
    with running(run):
        wait_for(lambda: run.standing.reason.endswith("away: west"), "it waits for the one that signed")
        assert set(federation.carrier.kinds("north")) == {JoinRequest.kind}
        federation.carrier.fails = lambda hospital, kind: ""
        federation.carrier.away = set()
    assert run.standing.state == "finished"
    assert federation.carrier.kinds("west")[:3] == [JoinRequest.kind, JoinRequest.kind, TrainRequest.kind]


def test_a_hospital_that_does_not_take_part_is_named_with_its_reason(federation: Federation) -> None:
    write_text(federation.kits["east"].policy, 'studies = ["other"]')
    run = federation.submit()
    run.run()
    assert run.standing.state == "failed"
    assert run.standing.reason.startswith("Hospital east does not take part: The hospital's policy")
    assert not (run.arm / ROSTER_NAME).exists()
    assert "keys-request" not in federation.carrier.kinds("north")


def test_a_hospital_that_refuses_ends_the_study_without_waiting_for_the_slow_ones(
    federation: Federation,
) -> None:
    write_text(federation.kits["north"].policy, 'studies = ["other"]')
    cancelled = threading.Event()
    answered = federation.carrier.call

    def call(
        hospital: str, topic: str, headers: Headers, content: bytes, seconds: float
    ) -> tuple[Headers, bytes] | None:
        if hospital == "south" and topic != "ping":
            if topic == "cancel":
                cancelled.set()
            return {STATE: WORKING, STEP: "audit", PERCENT: 5}, b""
        return answered(hospital, topic, headers, content, seconds)

    federation.carrier.call = call  # type: ignore[method-assign]
    with running(federation.submit()) as run:
        wait_for(lambda: run.standing.state == "failed", "the study has failed")
        run.join(10)
        assert not run.is_alive(), "another study could not begin"
    assert cancelled.is_set()


def test_a_hospital_that_drops_out_is_missing_and_the_round_goes_on(hospitals: Federation) -> None:
    def dies(hospital: str, kind: str) -> str:
        if (hospital, kind) == ("west", TrainRequest.kind):
            hospitals.carrier.away = {"west"}
        return ""

    hospitals.carrier.fails = dies
    run = hospitals.submit()
    run.run()
    assert run.standing.state == "finished"
    first, second = events(run, "round")
    # The answer that was under way arrived; from then on west is silent.
    assert first["sealing"]["survivors"] >= 3
    assert "west" in second["missing"] and second["sealing"]["survivors"] == 3


def test_a_round_that_fails_is_tried_three_times_and_every_failure_is_kept(
    hospitals: Federation, expected: dict[str, Parameters]
) -> None:
    hospitals.carrier.fails = lambda hospital, kind: (
        "Its disk is full." if kind == TrainRequest.kind and hospital != "north" else ""
    )
    run = hospitals.submit()
    run.run()
    assert run.standing.state == "failed"
    assert "only 1 hospitals answered usably" in run.standing.reason
    assert "west: Its disk is full." in run.standing.reason.replace("At training: ", "")
    assert hospitals.carrier.kinds("west").count(TrainRequest.kind) == 3
    failures = events(run, "failed")
    assert [event["round"] for event in failures] == [1, 1, 1]
    assert all("only 1 hospitals" in event["reason"] for event in failures)

    hospitals.carrier.fails = lambda hospital, kind: ""
    again = hospitals.again()
    again.run()

    assert again.standing.state == "finished"
    assert same(weights(again), expected["sealed"])
    told = [event["event"] for event in events(again) if event["event"] != "segment"]
    assert told == ["start", "failed", "failed", "failed", "round", "round", "end"]
    numbers = [event["number"] for event in events(again, "segment")]
    assert numbers and numbers == sorted(set(numbers))


def test_a_round_that_fails_once_is_repeated_without_anybodys_help(federation: Federation) -> None:
    failures = iter(["Its disk is full."] * 2)
    federation.carrier.fails = lambda hospital, kind: (
        next(failures, "") if kind == TrainRequest.kind and hospital in ("south", "west") else ""
    )
    run = federation.submit()
    run.run()
    assert run.standing.state == "finished"
    told = [event["event"] for event in events(run)]
    assert told == ["start", "failed", "round", "round", "end"]


def test_tries_are_counted_for_each_round_anew(federation: Federation) -> None:
    seen: list[int] = []

    def fails(hospital: str, kind: str) -> str:
        if kind == TrainRequest.kind and hospital in ("south", "west"):
            # Two tries of the first round and two of the second come to nothing.
            seen.append(1)
            return "Busy." if len(seen) // 2 + len(seen) % 2 in (1, 2, 4, 5) else ""
        return ""

    federation.carrier.fails = fails
    run = federation.submit()
    run.run()
    assert run.standing.state == "finished"
    told = [(event["event"], event.get("round")) for event in events(run) if "round" in event]
    assert told == [("failed", 1), ("failed", 1), ("round", 1), ("failed", 2), ("failed", 2), ("round", 2)]


def test_hospitals_that_went_away_in_a_round_are_waited_for(federation: Federation) -> None:
    def leave(hospital: str, kind: str) -> str:
        if kind == TrainRequest.kind and not left:
            left.append(hospital)
            federation.carrier.away = {"south", "west"}
        return ""

    left: list[str] = []
    federation.carrier.fails = leave
    run = federation.submit(network={"grace": 0})
    with running(run):
        wait_for(lambda: "away: south, west" in run.standing.reason, "it waits")
        assert run.standing.state == "waiting"
        federation.carrier.away = set()
    assert run.standing.state == "finished"
    assert 1 <= len(events(run, "failed")) <= 2


@pytest.mark.parametrize("mode", ["plain", "sealed"])
def test_stopped_in_a_round_and_resumed_with_new_processes_it_ends_alike(
    hospitals: Federation, expected: dict[str, Parameters], mode: str
) -> None:
    run = hospitals.submit(mode, sealing=PLAIN if mode == "plain" else {})
    trained: list[str] = []

    def stop_in_round_two(hospital: str, kind: str) -> str:
        trained.extend([hospital] if kind == TrainRequest.kind else [])
        if len(trained) == 6:
            run.stop()
        return ""

    hospitals.carrier.fails = stop_in_round_two
    run.run()
    assert (run.standing.state, run.standing.reason) == ("stopped", "The study was stopped.")
    assert len(events(run, "round")) == 1

    hospitals.carrier.restart(*NAMES)
    joins = hospitals.carrier.kinds("north").count(JoinRequest.kind)
    again = hospitals.again(mode)
    again.run()

    assert again.standing.state == "finished"
    assert same(weights(again), expected[mode])
    assert [event["round"] for event in events(again, "round")] == [1, 2]
    assert hospitals.carrier.kinds("north").count(JoinRequest.kind) == joins + 1


def test_a_study_can_be_stopped_while_it_waits(federation: Federation) -> None:
    federation.carrier.away = set(NAMES)
    run = federation.submit()
    with running(run):
        wait_for(lambda: run.standing.reason, "it waits")
        run.stop()
    assert run.standing.state == "stopped"


def test_a_study_goes_on_with_enough_hospitals_when_resumed(federation: Federation) -> None:
    federation.carrier.fails = lambda hospital, kind: "Busy." if kind == TrainRequest.kind else ""
    run = federation.submit()
    run.run()
    assert run.standing.state == "failed"
    federation.carrier.fails = lambda hospital, kind: ""
    federation.carrier.away = {"east"}

    again = federation.again()
    again.run()

    assert again.standing.state == "finished"
    assert all("east" in event["missing"] for event in events(again, "round"))


def test_a_hospital_that_comes_back_in_the_middle_takes_part_again(federation: Federation) -> None:
    run = federation.submit(federation={"rounds": 3})

    def away_in_round_two(hospital: str, kind: str) -> str:
        if kind == TrainRequest.kind and hospital == "north":
            rounds.append(len(rounds) + 1)
            # Its process ended meanwhile: all that it has of the study stands in its kit.
            federation.carrier.restart("west")
        if kind == "evaluate-request" and hospital == "north":
            federation.carrier.away = {"west"} if len(rounds) == 1 else set()
        return ""

    rounds: list[int] = []
    federation.carrier.fails = away_in_round_two
    run.run()
    assert run.standing.state == "finished"
    missing = [set(event["missing"]) for event in events(run, "round")]
    assert missing == [set(), {"west"}, set()]


def test_another_key_within_a_study_is_refused(federation: Federation) -> None:
    run = federation.submit(federation={"rounds": 1})
    run.run()
    assert run.standing.state == "finished"
    new_key(federation.kits, "west", list(federation.kits))
    asked = len(federation.carrier.asked)

    again = federation.again()
    again.run()

    assert again.standing.state == "failed"
    assert "is of other hospitals or keys than the federation has now" in again.standing.reason
    assert "A roster does not change within a study." in again.standing.reason
    assert len(federation.carrier.asked) == asked


def test_the_same_settings_may_come_again_under_another_name(hospitals: Federation) -> None:
    for name in ("first", "second"):
        run = hospitals.submit(name, federation={"rounds": 1})
        run.run()
        assert run.standing.state == "finished"
        # Hospitals know a study by its settings, and refuse what lies behind them.
        assert events(run, "failed") == []


def test_maps_are_measured_at_home_as_on_one_machine(hospitals: Federation, drawn: Path) -> None:
    wanted: dict[str, dict[str, Any]] = {"explanation": {"measures": "quick"}, "federation": {"rounds": 1}}
    alone = make_study(drawn, "maps", **wanted).model_copy(update={"output": drawn / "run-maps"})
    together = train_arm(prepare(alone), FEDERATED).rounds.history
    run = hospitals.submit("maps", **wanted)
    run.run()
    assert run.standing.state == "finished"

    here, there = (
        next(event for event in history if event["event"] == "round")["explanation"]
        for history in (together, events(run, "round"))
    )
    assert without_seconds(there["figures"]) == without_seconds(here["figures"])
    assert list(there["told"]["hospitals"]) == list(NAMES) and "by_hospital" not in there
    for name in NAMES:
        (home,) = (hospitals.kits[name].folder / "studies").glob("*/explanations.json")
        (entry,) = json.loads(home.read_text())["rounds"]
        assert without_seconds(entry["federation"]) == without_seconds(there["figures"])
        assert entry["own"]["empty"]["images"] < there["images"]


def test_a_hospital_that_is_away_when_totals_are_told_hears_of_the_next(federation: Federation) -> None:
    def gone(hospital: str, kind: str) -> str:
        return "Out." if kind == ExplanationTotals.kind and hospital == "east" else ""

    federation.carrier.fails = gone
    run = federation.submit(explanation={"measures": "quick", "every": 1})
    run.run()
    assert run.standing.state == "finished"
    for event in events(run, "round"):
        assert event["explanation"]["told"]["missing"] == {"east": "Out."}
        assert "east" in event["explanation"]["hospitals"]


def test_how_far_hospitals_are_stands_beside_the_study(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = federation.carrier.call
    standings: list[dict[str, str]] = []
    once: set[str] = set()

    def call(
        hospital: str, topic: str, headers: Headers, content: bytes, seconds: float
    ) -> tuple[Headers, bytes] | None:
        if topic == "ask" and hospital == "south" and len(once) < 2:
            once.add(headers["fl_errand"])
            return {STATE: WORKING, STEP: "audit", PERCENT: 5 * len(once)}, b""
        if topic == "fetch":
            standings.append(dict(run.standing.hospitals))
            topic, content = "ask", first_content[0]
        elif topic == "ask":
            first_content[:] = [content]
        return answered(hospital, topic, headers, content, seconds)

    first_content: list[bytes] = [b""]
    federation.carrier.call = call  # type: ignore[method-assign]
    run = federation.submit(federation={"rounds": 1})
    run.run()
    assert {"south": "audit 5 %"} in standings
    assert run.standing.hospitals == {}


def test_a_fault_in_the_program_ends_the_study_for_its_followers(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by nought")

    monkeypatch.setattr(study_run, "run_rounds", fault)
    run = federation.submit()
    with pytest.raises(ZeroDivisionError):
        run.run()
    assert run.standing.state == "failed"
    assert run.standing.reason == "A fault in the program: ZeroDivisionError: by nought."


def test_a_hospital_that_is_no_member_is_refused(federation: Federation) -> None:
    run = federation.submit(hospitals={"names": (*NAMES, "mercy")})
    run.run()
    assert run.standing.state == "failed" and "'mercy' is not a member of chest" in run.standing.reason


def test_the_roster_is_in_the_federations_order_whatever_the_studys(federation: Federation) -> None:
    run = federation.submit(hospitals={"names": ("west", "south", "north")}, federation={"rounds": 1})
    run.run()
    assert run.standing.state == "finished"
    assert events(run)[0]["hospitals"] == ["north", "south", "west"]
    assert federation.carrier.kinds("east") == []


def test_a_submission_is_kept_as_it_came(federation: Federation) -> None:
    content = encode(quick_submission("a"))
    kit = federation.kits[COORDINATOR]
    assert keep_submission(kit, content) == "a"
    assert (kit.studies / "a" / SUBMISSION_NAME).read_bytes() == content


def test_a_second_study_of_that_name_changes_nothing(federation: Federation) -> None:
    kit = federation.kits[COORDINATOR]
    first = encode(quick_submission("a"))
    keep_submission(kit, first)
    with pytest.raises(RoundError, match="has a study named a already"):
        keep_submission(kit, encode(quick_submission("a", training={"passes": 9})))
    assert (kit.studies / "a" / SUBMISSION_NAME).read_bytes() == first


def test_a_name_whose_submission_never_arrived_is_free(federation: Federation) -> None:
    kit = federation.kits[COORDINATOR]
    (kit.studies / "a").mkdir(parents=True)
    assert keep_submission(kit, encode(quick_submission("a"))) == "a"


def test_what_is_no_submission_leaves_nothing(federation: Federation) -> None:
    with pytest.raises(ProtocolError, match="kind submission"):
        keep_submission(federation.kits[COORDINATOR], b"nonsense")
    assert not federation.kits[COORDINATOR].studies.exists()


def test_the_settings_travel_without_paths(hospitals: Federation, drawn: Path) -> None:
    run = hospitals.submit("a")
    assert isinstance(run.study, Study)
    assert str(drawn) not in run.submission.settings
    assert run.study.digest() == make_study(drawn, "a").digest()
