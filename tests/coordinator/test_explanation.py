"""Measured maps seen from the coordinator, in the clear: when they are due, and what is taken."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.coordinator.fakes import CLASSES, FakeHospital, initial_parameters, make_engine, make_settings

from fedlens.coordinator.explanation import check_explanation
from fedlens.coordinator.history import Event, without_seconds
from fedlens.coordinator.rounds import run_rounds
from fedlens.coordinator.schedule import explanation_due, steps_of
from fedlens.engines.local import LocalEngine
from fedlens.errors import BadUpdateError, NotEnoughHospitalsError, RoundError
from fedlens.metrics.explanation import COLUMNS, EXPLAINED
from fedlens.metrics.explanation_totals import QualityTotals, figures
from fedlens.protocol.messages import ExplainRequest, Explanation, ExplanationTotals, Noted

QUICK: dict[str, Any] = {"measures": "quick"}
REQUEST = ExplainRequest("s", 4, "f", "validation", initial_parameters())


def rounds_of(events: tuple[Event, ...]) -> dict[int, Event]:
    return {
        event["round"]: event["explanation"]
        for event in events
        if event["event"] == "round" and "explanation" in event
    }


@pytest.mark.parametrize(
    ("explanation", "measured"),
    [
        ({"measures": "none"}, []),
        ({"measures": "none", "every": 1}, []),
        ({"measures": "quick"}, [5]),
        ({"measures": "full", "every": 2}, [2, 4, 5]),
        ({"measures": "quick", "every": 1}, [1, 2, 3, 4, 5]),
        ({"measures": "quick", "every": 9}, [5]),
    ],
)
def test_maps_are_measured_when_due_and_after_the_last_round(
    explanation: dict[str, Any], measured: list[int], tmp_path: Path
) -> None:
    hospital = FakeHospital("A", 30)
    engine = LocalEngine([hospital, FakeHospital("B", 40)])
    settings = make_settings(rounds=5, evaluate_every=2, explanation=explanation)
    result = run_rounds(settings, initial_parameters(), engine, tmp_path)
    assert [request.round for request in hospital.requests if isinstance(request, ExplainRequest)] == measured
    assert list(rounds_of(result.history)) == measured == [told.round for told in hospital.told]
    assert [number for number in range(1, 6) if explanation_due(settings, number)] == measured
    for number in range(1, 6):
        due = ["train"] + ["evaluate"] * (number in (2, 4, 5)) + ["explain"] * (number in measured)
        assert list(steps_of(settings, number)) == due


def test_patience_measures_the_last_rounds_maps(tmp_path: Path) -> None:
    class Worsening(FakeHospital):
        def distance(self, parameters: Any) -> float:
            return 1.0 + len(self.requests)

    members = [Worsening("A", 30), Worsening("B", 40)]
    settings = make_settings(rounds=20, training={"patience": 2}, explanation=QUICK)
    result = run_rounds(settings, initial_parameters(), LocalEngine(members), tmp_path)
    assert (result.reason, result.rounds, result.best_round) == ("patience", 3, 1)
    assert list(rounds_of(result.history)) == [3]
    (request,) = [one for one in members[0].requests if isinstance(one, ExplainRequest)]
    for name, array in result.parameters.items():
        np.testing.assert_array_equal(request.parameters[name], array)


def test_the_history_has_figures_of_all_and_of_each(tmp_path: Path) -> None:
    members = [FakeHospital(name, 30) for name in "ABC"]
    settings = make_settings(rounds=1, explanation=QUICK)
    result = run_rounds(settings, initial_parameters(), LocalEngine(members), tmp_path)
    said = rounds_of(result.history)[1]
    assert (said["split"], said["method"], said["measures"]) == ("validation", "grad-cam", "quick")
    assert said["images"] == 60 and said["missing"] == {} == said["refused"]
    each = {member.name: member.maps(result.parameters) for member in members}
    everyone = sum(each.values(), start=QualityTotals.zero(2))
    assert without_seconds(said["figures"]) == without_seconds(figures(everyone, CLASSES))
    for name, own in each.items():
        assert without_seconds(said["by_hospital"][name]) == without_seconds(figures(own, CLASSES))
    assert said["figures"]["energy"]["chance"] == 0.25 and said["figures"]["energy"]["images"] == 60
    table = 2 * len(CLASSES) * len(COLUMNS) * 8
    assert said["hospitals"]["A"]["bytes_up"] == table == said["told"]["hospitals"]["A"]["bytes_down"]
    assert list(said["told"]["hospitals"]) == list("ABC") and said["seconds"] >= 0
    for member in members:
        (told,) = member.told
        assert told.study == settings.study and told.round == 1
        np.testing.assert_array_equal(told.totals["counts"], everyone.counts)


def test_who_is_away_is_not_in_the_sum_and_not_told(tmp_path: Path) -> None:
    class Blind(FakeHospital):
        def explain(self, request: ExplainRequest) -> Explanation:
            raise RoundError("It cannot look.")

    class Liar(FakeHospital):
        def explain(self, request: ExplainRequest) -> Explanation:
            return dataclasses.replace(super().explain(request), round=9)

    members = [FakeHospital("A", 30), FakeHospital("B", 40), Blind("C", 50), Liar("D", 60)]
    settings = make_settings(rounds=2, explanation={**QUICK, "every": 1})
    result = run_rounds(settings, initial_parameters(), LocalEngine(members), tmp_path)
    for said in rounds_of(result.history).values():
        assert said["missing"] == {"C": "It cannot look."} and "round = 9" in said["refused"]["D"]
        assert said["images"] == 40 and list(said["by_hospital"]) == ["A", "B"]
        assert list(said["told"]["hospitals"]) == ["A", "B"]
    assert not members[2].told and not members[3].told


def test_too_few_explanations_end_the_round_and_it_is_repeated(tmp_path: Path) -> None:
    class Blind(FakeHospital):
        blind = True

        def explain(self, request: ExplainRequest) -> Explanation:
            if self.blind:
                raise RoundError("It cannot look.")
            return super().explain(request)

    def members(folder: Path) -> list[FakeHospital]:
        return [FakeHospital("A", 30, folder / "A"), Blind("B", 40, folder / "B")]

    settings = make_settings(rounds=3, explanation=QUICK)
    whole = members(tmp_path / "w")
    whole[1].blind = False  # type: ignore[attr-defined]
    expected = run_rounds(settings, initial_parameters(), LocalEngine(whole), tmp_path / "whole")
    broken = members(tmp_path / "b")
    with pytest.raises(NotEnoughHospitalsError, match="Explanation of round 3: only 1 hospitals"):
        run_rounds(settings, initial_parameters(), LocalEngine(broken), tmp_path / "run")
    broken[1].blind = False  # type: ignore[attr-defined]
    result = run_rounds(settings, initial_parameters(), LocalEngine(broken), tmp_path / "run", resume=True)
    for name, array in expected.parameters.items():
        np.testing.assert_array_equal(result.parameters[name], array)
    assert without_seconds(rounds_of(result.history)) == without_seconds(rounds_of(expected.history))
    (failed,) = [event for event in result.history if event["event"] == "failed"]
    assert failed["explanation"]["missing"] == {"B": "It cannot look."}


@pytest.mark.parametrize(
    ("note", "reason"),
    [
        (lambda told: Noted("B", told.study, told.round), "a note of other totals"),
        (lambda told: Noted("A", told.study, 7), "a note of other totals"),
    ],
)
def test_a_hospital_that_does_not_hear_of_the_totals_fails_nothing(
    note: Callable[[ExplanationTotals], Noted], reason: str, tmp_path: Path
) -> None:
    class Odd(FakeHospital):
        def note(self, told: ExplanationTotals) -> Noted:
            return note(told)

    class Gone(FakeHospital):
        def note(self, told: ExplanationTotals) -> Noted:
            raise RoundError("The line is dead.")

    engine = LocalEngine([Odd("A", 30), Gone("B", 40)])
    result = run_rounds(make_settings(rounds=1, explanation=QUICK), initial_parameters(), engine, tmp_path)
    said = rounds_of(result.history)[1]["told"]
    assert said["missing"] == {"B": "The line is dead."} and reason in said["refused"]["A"]


def test_a_resumed_run_measures_the_same(tmp_path: Path) -> None:
    settings = make_settings(rounds=4, explanation={**QUICK, "every": 2})
    whole = run_rounds(settings, initial_parameters(), make_engine(tmp_path / "w"), tmp_path / "whole")

    def stop(step: str, done: int, total: int) -> None:
        if step == "explanation totals" and done == 2:
            raise KeyboardInterrupt

    engine = make_engine(tmp_path / "b")
    with pytest.raises(KeyboardInterrupt):
        run_rounds(settings, initial_parameters(), engine, tmp_path / "run", progress=stop)
    resumed = run_rounds(settings, initial_parameters(), engine, tmp_path / "run", resume=True)
    assert without_seconds(list(resumed.history)) == without_seconds(list(whole.history))


def honest() -> Explanation:
    return FakeHospital("A", 30).explain(REQUEST)


def with_numbers(**changes: Any) -> dict[str, Any]:
    return {"counts": {**honest().counts, **changes}}


SUMS, COUNTS = honest().counts["sums"], honest().counts["counts"]
NOT_EXPLAINED = np.array([column != EXPLAINED for column in COLUMNS], np.int64)
LIES: dict[str, dict[str, Any]] = {
    "round": {"round": 3},
    "hospital": {"hospital": "B"},
    "study": {"study": "other"},
    "fingerprint": {"fingerprint": "other"},
    "split 'test'": {"split": "test"},
    "arrays": {"counts": {}},
    "array sums": with_numbers(sums=SUMS[:, :3]),
    "array counts": with_numbers(counts=COUNTS.astype(np.float32)),
    "impossible sums": with_numbers(counts=-COUNTS),
    "impossible sums, counts": with_numbers(counts=COUNTS + NOT_EXPLAINED),
    "impossible": with_numbers(sums=SUMS + (COUNTS << 31)),
    "sums, counts or time": with_numbers(sums=np.full_like(SUMS, -(2**63))),
    "impossible sums, counts or": with_numbers(counts=np.full_like(COUNTS, 2**62)),
    "or time": {"seconds": -1.0},
}


def test_an_honest_explanation_passes() -> None:
    totals = check_explanation(honest(), "A", REQUEST, 2)
    assert totals.possible() and totals.column("energy")[1].tolist() == [10, 10]


@pytest.mark.parametrize("named", list(LIES))
def test_lies_are_refused(named: str) -> None:
    with pytest.raises(BadUpdateError, match=named):
        check_explanation(dataclasses.replace(honest(), **LIES[named]), "A", REQUEST, 2)
