from __future__ import annotations

import ast
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.coordinator.fakes import (
    NORM_NAMES,
    FailingHospital,
    FakeHospital,
    LyingHospital,
    initial_parameters,
    make_engine,
    make_settings,
)

import fedlens.coordinator
import fedlens.protocol
from fedlens.coordinator.history import read_history
from fedlens.coordinator.rounds import run_rounds
from fedlens.engines.local import LocalEngine
from fedlens.errors import NotEnoughHospitalsError, RoundError, SettingsError
from fedlens.protocol.messages import EvaluateRequest, TrainRequest, Update


def test_one_round_is_the_weighted_mean_of_updates(tmp_path: Path) -> None:
    initial = initial_parameters()
    result = run_rounds(make_settings(rounds=1), initial, make_engine(), tmp_path)
    twins = [FakeHospital(name, 30 + 17 * index) for index, name in enumerate("ABCD")]
    plan_source = FakeHospital("A", 30)
    run_rounds(
        make_settings(rounds=1, minimum_hospitals=1), initial, LocalEngine([plan_source]), tmp_path / "other"
    )
    request = plan_source.requests[0]
    assert isinstance(request, TrainRequest)
    seen = [twin.train(request) for twin in twins]
    weights = np.array([update.images for update in seen], np.float64)
    for name in ("conv.weight", "norm.weight", "norm.running_var"):
        mean = np.average([update.delta[name] for update in seen], axis=0, weights=weights)
        np.testing.assert_allclose(result.parameters[name], initial[name] + mean, rtol=1e-6)
    counts = [int(update.delta["norm.count"]) for update in seen]
    assert result.parameters["norm.count"] == round(np.average(counts, weights=weights))
    assert result.parameters["norm.count"].shape == ()


def test_learning_gets_nearer_and_initial_stays(tmp_path: Path) -> None:
    initial = initial_parameters()
    before = {name: array.copy() for name, array in initial.items()}
    result = run_rounds(make_settings(rounds=8), initial, make_engine(), tmp_path)
    losses = [event["evaluation"]["loss"] for event in result.history if event["event"] == "round"]
    assert len(losses) == 8
    assert losses[-1] < losses[0]
    assert result.best_loss == min(losses)
    assert result.best_round == 1 + losses.index(min(losses))
    for name, array in before.items():
        np.testing.assert_array_equal(initial[name], array)


def test_history_says_what_each_hospital_did(tmp_path: Path) -> None:
    result = run_rounds(make_settings(rounds=2), initial_parameters(), make_engine(), tmp_path)
    start, first, _, end = result.history
    assert start["hospitals"] == ["A", "B", "C", "D"] and start["strategy"] == "fedavg"
    assert first["images"] == 30 + 47 + 64 + 81 and first["accuracy"] == pytest.approx(0.5, abs=0.02)
    assert first["hospitals"]["B"]["images"] == 47
    # Six, two and two floats, and one counter of 8 bytes.
    assert first["hospitals"]["B"]["bytes_up"] == first["hospitals"]["B"]["bytes_down"] == 48
    assert first["missing"] == {} == first["refused"]
    evaluation = first["evaluation"]
    assert evaluation["images"] == 80
    assert evaluation["support"] == {"normal": 40, "ill": 40}
    assert evaluation["hospitals"]["C"]["support"] == {"normal": 10, "ill": 10}
    assert evaluation["auroc"] == {"normal": 1.0, "ill": 1.0}
    total = np.sum([entry["confusion"] for entry in evaluation["hospitals"].values()], axis=0)
    np.testing.assert_array_equal(evaluation["confusion"], total)
    assert evaluation["accuracy"] == pytest.approx(np.trace(total) / 80)
    assert end == {"event": "end", "reason": "rounds", "rounds": 2, "best_round": result.best_round}


def nan(update: Update) -> Update:
    delta = {**update.delta, "conv.weight": update.delta["conv.weight"].copy()}
    delta["conv.weight"][1, 1] = np.nan
    return dataclasses.replace(update, delta=delta)


LIES: dict[str, Any] = {
    "array conv.weight": nan,
    "array norm.weight": lambda update: dataclasses.replace(
        update, delta={name: value for name, value in update.delta.items() if name != "norm.weight"}
    ),
    "array extra": lambda update: dataclasses.replace(
        update, delta={**update.delta, "extra": np.zeros(1, np.float32)}
    ),
    "array norm.running_var": lambda update: dataclasses.replace(
        update, delta={**update.delta, "norm.running_var": np.zeros((1, 2), np.float32)}
    ),
    "array norm.count": lambda update: dataclasses.replace(
        update, delta={**update.delta, "norm.count": np.array(3, np.float32)}
    ),
    "round": lambda update: dataclasses.replace(update, round=9),
    "study": lambda update: dataclasses.replace(update, study="6" * 64),
    "fingerprint": lambda update: dataclasses.replace(update, fingerprint="e" * 64),
    "hospital": lambda update: dataclasses.replace(update, hospital="B"),
    "images": lambda update: dataclasses.replace(update, images=0),
    "images = 5": lambda update: dataclasses.replace(update, images=5 * 10**15),
    "correct": lambda update: dataclasses.replace(update, correct=update.seen + 1),
    "loss_sum": lambda update: dataclasses.replace(update, loss_sum=-1.0),
    "cannot be read": lambda update: b"\x08\0\0\0\0\0\0\0garbage!",
}


@pytest.mark.parametrize("named", list(LIES))
def test_bad_update_is_refused_and_the_round_goes_on(named: str, tmp_path: Path) -> None:
    honest = [FakeHospital(name, images) for name, images in (("A", 30), ("B", 47))]
    liar = LyingHospital("L", 50, LIES[named])
    result = run_rounds(make_settings(rounds=2), initial_parameters(), LocalEngine([*honest, liar]), tmp_path)
    alone = run_rounds(
        make_settings(rounds=2),
        initial_parameters(),
        LocalEngine([FakeHospital(name, images) for name, images in (("A", 30), ("B", 47))]),
        tmp_path / "alone",
    )
    for name, array in alone.parameters.items():
        np.testing.assert_array_equal(result.parameters[name], array)
    event = result.history[1]
    assert list(event["refused"]) == ["L"] and event["missing"] == {}
    assert named in event["refused"]["L"]
    assert list(event["hospitals"]) == ["A", "B"]


def test_failed_hospital_is_missing_for_its_round_only(tmp_path: Path) -> None:
    members = [FakeHospital("A", 30), FakeHospital("B", 40), FailingHospital("F", 50, rounds=(2,))]
    result = run_rounds(make_settings(rounds=3), initial_parameters(), LocalEngine(members), tmp_path)
    rounds = [event for event in result.history if event["event"] == "round"]
    assert [list(event["missing"]) for event in rounds] == [[], ["F"], []]
    assert "no longer finite" in rounds[1]["missing"]["F"]
    assert rounds[1]["images"] == 70


def test_too_few_hospitals_end_the_study_and_say_why(tmp_path: Path) -> None:
    members = [FakeHospital("A", 30), LyingHospital("L", 40, nan, since=2), FailingHospital("F", 50, (2,))]
    with pytest.raises(NotEnoughHospitalsError, match=r"L: .*conv\.weight") as caught:
        run_rounds(make_settings(rounds=3), initial_parameters(), LocalEngine(members), tmp_path)
    assert "F: The training loss is no longer finite" in str(caught.value)
    # Mended, the study goes on where it ended.
    mended = [FakeHospital("A", 30), FakeHospital("L", 40), FakeHospital("F", 50)]
    result = run_rounds(
        make_settings(rounds=3), initial_parameters(), LocalEngine(mended), tmp_path, resume=True
    )
    assert [event["event"] for event in result.history] == [
        "start",
        "round",
        "failed",
        "round",
        "round",
        "end",
    ]


def test_failed_round_stands_in_the_history(tmp_path: Path) -> None:
    members = [FakeHospital("A", 30), FailingHospital("F", 50, (1,))]
    with pytest.raises(NotEnoughHospitalsError):
        run_rounds(make_settings(), initial_parameters(), LocalEngine(members), tmp_path)
    failed = read_history(tmp_path)[-1]
    assert failed["event"] == "failed" and failed["round"] == 1 and list(failed["missing"]) == ["F"]


def test_small_roster_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotEnoughHospitalsError, match="minimum_hospitals = 2"):
        run_rounds(make_settings(), initial_parameters(), make_engine(hospitals="A"), tmp_path)


def test_weights_beyond_float32_end_the_study(tmp_path: Path) -> None:
    def huge(update: Update) -> Update:
        return dataclasses.replace(
            update,
            delta={
                name: np.full_like(value, 3e38) if value.dtype == np.float32 else value
                for name, value in update.delta.items()
            },
        )

    members = [LyingHospital("A", 30, huge), LyingHospital("B", 40, huge)]
    with pytest.raises(RoundError, match="is no longer finite"):
        run_rounds(make_settings(), initial_parameters(), LocalEngine(members), tmp_path)


def test_fedbn_keeps_norms_at_home(tmp_path: Path) -> None:
    hospital = FakeHospital("A", 30)
    engine = LocalEngine([hospital, FakeHospital("B", 40)])
    initial = initial_parameters()
    result = run_rounds(make_settings(strategy="fedbn"), initial, engine, tmp_path)
    for name in NORM_NAMES:
        np.testing.assert_array_equal(result.parameters[name], initial[name])
    assert not np.array_equal(result.parameters["conv.weight"], initial["conv.weight"])
    request = hospital.requests[0]
    assert isinstance(request, TrainRequest) and set(request.plan.personal) == NORM_NAMES
    update = hospital.train(request)
    assert set(update.delta) == {"conv.weight"}


def test_fedbn_needs_norms(tmp_path: Path) -> None:
    settings = dataclasses.replace(make_settings(strategy="fedbn"), norm_names=frozenset())
    with pytest.raises(SettingsError, match="normalisation"):
        run_rounds(settings, initial_parameters(), make_engine(), tmp_path)


def test_evaluation_is_due_every_so_often_and_at_the_end(tmp_path: Path) -> None:
    hospital = FakeHospital("A", 30)
    engine = LocalEngine([hospital, FakeHospital("B", 40)])
    run_rounds(make_settings(rounds=5, evaluate_every=2), initial_parameters(), engine, tmp_path)
    asked = [request.round for request in hospital.requests if isinstance(request, EvaluateRequest)]
    assert asked == [2, 4, 5]


def test_patience_ends_the_study_with_the_best_round(tmp_path: Path) -> None:
    class Worsening(FakeHospital):
        def distance(self, parameters: Any) -> float:
            rounds = sum(isinstance(request, EvaluateRequest) for request in self.requests)
            return abs(rounds - 3) + 1.0

    engine = LocalEngine([Worsening("A", 30), Worsening("B", 40)])
    settings = make_settings(rounds=20, training={"patience": 2})
    result = run_rounds(settings, initial_parameters(), engine, tmp_path)
    assert (result.reason, result.rounds, result.best_round) == ("patience", 5, 3)
    assert not np.array_equal(result.best_parameters["conv.weight"], result.parameters["conv.weight"])
    kept = sorted(path.name for path in (tmp_path / "rounds").iterdir())
    assert kept == [f"round-000{number}.safetensors" for number in (3, 4, 5)]


def test_coordinator_and_protocol_import_nothing_of_the_hospital_side() -> None:
    for package in (fedlens.coordinator, fedlens.protocol):
        for folder in package.__path__:
            for path in Path(folder).glob("*.py"):
                for node in ast.walk(ast.parse(path.read_text())):
                    names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                    names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                    for name in names:
                        assert not name.startswith(("fedlens.imaging", "fedlens.hospital", "fedlens.explain"))
