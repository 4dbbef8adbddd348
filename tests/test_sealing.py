"""Sealed rounds with real hospitals: the same federation as in the clear, and what goes wrong in it."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedlens.coordinator.schedule import plan_round
from fedlens.coordinator.strategies import make_strategy
from fedlens.errors import (
    BadUpdateError,
    NotEnoughHospitalsError,
    ProtocolError,
    RoundError,
    SettingsError,
)
from fedlens.hospital.hospital import Hospital, LocalEvaluation, LocalTraining
from fedlens.models.network import Network
from fedlens.models.parameters import to_parameters
from fedlens.models.registry import build_network
from fedlens.progress import silent as silent_progress
from fedlens.protocol.codec import encode
from fedlens.protocol.messages import (
    EvaluateRequest,
    KeysRequest,
    Parameters,
    RoundPlan,
    SharesRequest,
    TrainRequest,
    UnmaskRequest,
)
from fedlens.sealing_files import next_segment, threshold_of
from fedlens.study import Study

from .hospital.conftest import CLASSES, SIZE, make_images
from .trial_federation import TrialFederation

NAMES = "ABCD"


def make_study(
    *,
    rounds: int = 2,
    sealing: dict[str, Any] | None = None,
    explanation: dict[str, Any] | None = None,
    **federation: Any,
) -> Study:
    return Study.model_validate(
        {
            "name": "s",
            "data": {"folder": "images"},
            "preprocess": {"size": SIZE},
            "training": {"passes": rounds, "batch_size": 8, "precision": "float32", "device": "cpu"},
            "federation": {"rounds": rounds, **federation},
            "sealing": sealing or {},
            "explanation": explanation or {"measures": "none"},
        }
    )


def make_network(seed: int = 0) -> Network:
    study = make_study()
    return build_network(study.model, classes=CLASSES, channels=3, image_size=SIZE, seed=seed)


class Federation(TrialFederation):
    """Four hospitals with random images, and a coordinator."""

    def __init__(self, folder: Path, study: Study, names: str = NAMES) -> None:
        hospitals = [
            Hospital(
                name,
                study,
                make_network(),
                {"train": make_images(24 + 8 * place, place), "validation": make_images(9, 50 + place)},
                folder / "hospitals" / name,
                batch_size=8,
            )
            for place, name in enumerate(names)
        ]
        super().__init__(folder, study, hospitals, make_network(), ("x", "y", "z"))


def distance(one: Parameters, other: Parameters, start: Parameters) -> float:
    """L2 distance of two models over the distance that the other has come."""
    names = [name for name in start if start[name].dtype == np.float32]
    apart = sum(np.square(one[name] - other[name], dtype=np.float64).sum() for name in names)
    come = sum(np.square(other[name] - start[name], dtype=np.float64).sum() for name in names)
    return float(np.sqrt(apart / come))


@pytest.mark.parametrize(
    ("strategy", "bits", "tolerance"),
    [
        ("fedavg", 16, 5e-4),
        ("fedavg", 32, 1e-6),
        ("fedbn", 32, 1e-6),
        ("fedprox", 16, 5e-4),
        ("fedavgm", 16, 5e-4),
    ],
)
def test_sealed_rounds_give_the_plain_model(
    strategy: Any, bits: Any, tolerance: float, tmp_path: Path
) -> None:
    results = []
    for mode in ("off", "auto"):
        study = make_study(rounds=1, strategy=strategy, sealing={"mode": mode, "value_bits": bits})
        results.append(Federation(tmp_path / mode, study).run())
    plain, sealed = results
    start = to_parameters(make_network())
    assert 0 < distance(sealed.parameters, plain.parameters, start) < tolerance
    counters = [name for name in start if start[name].dtype == np.int64]
    assert all(np.array_equal(sealed.parameters[name], plain.parameters[name]) for name in counters)
    one, two = (next(e for e in result.history if e["event"] == "round") for result in results)
    for key in ("images", "accuracy"):
        assert one[key] == two[key]
    assert one["loss"] == pytest.approx(two["loss"], abs=1e-5)
    assert one["evaluation"]["images"] == two["evaluation"]["images"] == 36


def test_the_narrow_rounds_after_the_first_are_as_exact_as_promised(tmp_path: Path) -> None:
    """From one model, the second round's mean sealed in 16 bits against the same in 32."""
    federation = Federation(tmp_path, make_study(rounds=2))
    federation.run()
    events = [event for event in federation.run(resume=True).history if event["event"] == "round"]
    assert [event["sealing"]["value_bits"] for event in events] == [40, 16]
    assert all(event["sealing"]["saturated"] == 0 for event in events)


def test_history_shows_totals_and_each_hospital_its_own(tmp_path: Path) -> None:
    result = Federation(tmp_path, make_study(rounds=1)).run()
    start, segment, event = result.history[:3]
    assert start["sealed"] is True and segment["images"] == 24 + 32 + 40 + 48
    text = json.dumps([segment["hospitals"], event["hospitals"], event["evaluation"]["hospitals"]])
    for told in ("loss", "accuracy", "images", "confusion"):
        assert told not in text, "the coordinator knows a single hospital's figures"
    own = [
        json.loads(line)
        for line in (tmp_path / "hospitals" / "B" / "hospital.jsonl").read_text().splitlines()
    ]
    assert [(line["round"], line["step"], line["images"]) for line in own] == [
        (0, "enrol", 32),
        (1, "train", 32),
        (1, "evaluate", 9),
    ]
    assert own[1]["loss"] > 0 and 0 <= own[2]["accuracy"] <= 1


@pytest.mark.parametrize(
    ("kind", "narrower"),
    [
        (KeysRequest.kind, False),
        (SharesRequest.kind, False),
        (TrainRequest.kind, True),
        (UnmaskRequest.kind, False),
    ],
)
def test_a_round_completes_when_a_hospital_drops_out(kind: str, narrower: bool, tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study(rounds=2))
    rounds = {"seen": 0}

    def silent(name: str, asked: str) -> bool:
        rounds["seen"] += asked == TrainRequest.kind and name == "A"
        return name == "D" and asked == kind

    result = federation.run(silent)
    for event in [event for event in result.history if event["event"] == "round"]:
        survivors = event["sealing"]["survivors"]
        expected = 4 if kind == UnmaskRequest.kind else 3
        assert survivors == expected and "The line is dead." in event["missing"]["D"]
        assert event["images"] == (144 if expected == 4 else 96)
        assert event["sealing"]["dropped"] == (["D"] if narrower else [])
    assert result.rounds == 2


def test_a_hospital_that_was_away_takes_part_again(tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study(rounds=3))
    asked = {"D": 0}

    def silent(name: str, kind: str) -> bool:
        asked["D"] += name == "D" and kind == TrainRequest.kind
        return name == "D" and kind == TrainRequest.kind and asked["D"] == 2

    events = [event for event in federation.run(silent).history if event["event"] == "round"]
    assert [event["sealing"]["survivors"] for event in events] == [4, 3, 4]


@pytest.mark.parametrize("kind", [KeysRequest.kind, TrainRequest.kind, UnmaskRequest.kind])
def test_below_the_threshold_nothing_is_opened(kind: str, tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study(rounds=2))
    reached = {"training": False}

    def silent(name: str, asked: str) -> bool:
        reached["training"] |= asked == TrainRequest.kind
        return name in "CD" and asked == kind and (reached["training"] or kind == KeysRequest.kind)

    with pytest.raises(NotEnoughHospitalsError, match=r"only 2 hospitals .*3.*The line is dead"):
        federation.run(silent)
    federation.engine.silent = lambda name, kind: False  # type: ignore[method-assign]
    again = Federation(tmp_path, make_study(rounds=2))
    assert again.run(resume=True).rounds == 2


def test_partial_participation_is_sealed_too(tmp_path: Path) -> None:
    study = make_study(rounds=3, participation=0.75, minimum_hospitals=3)
    events = [e for e in Federation(tmp_path, study).run().history if e["event"] == "round"]
    assert [event["sealing"]["participants"] for event in events] == [3, 3, 3]


class Diverged(Hospital):
    """Trains to numbers that are not fit to be summed."""

    spoil: float = np.nan

    def train(self, request: TrainRequest) -> LocalTraining:
        """As its parent, spoilt."""
        trained = super().train(request)
        delta = {**trained.delta, "output.bias": trained.delta["output.bias"] + np.float32(self.spoil)}
        return dataclasses.replace(trained, delta=delta)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(np.nan, "not finite"), (np.inf, "not finite"), (1e6, "norm is beyond the plan's bound")],
)
def test_a_spoilt_update_is_refused_before_it_is_sealed(spoil: float, reason: str, tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study(rounds=1))
    federation.hospitals[2].__class__ = Diverged
    federation.hospitals[2].spoil = spoil  # type: ignore[attr-defined]
    (event,) = [event for event in federation.run().history if event["event"] == "round"]
    assert "C" in event["missing"] and event["sealing"]["survivors"] == 3
    log = (tmp_path / "hospitals" / "C" / "hospital.jsonl").read_text().splitlines()
    refusals = [json.loads(line)["refused"] for line in log if "refused" in line]
    assert len(refusals) == 1
    figures = [json.loads(line) for line in log if '"norm"' in line]
    assert len(figures) == (spoil == 1e6) and all(entry["norm"] > entry["norm_bound"] for entry in figures)
    with pytest.raises(BadUpdateError, match=reason):
        raise BadUpdateError(refusals[0])


def test_a_sealed_hospital_gives_nothing_in_the_clear(tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study())
    digest, prints = federation.study.digest(), federation.settings.fingerprint
    plan = RoundPlan(digest, 1, 2, prints, 1.0, 0, 0.001, 0.001)
    for request in (
        TrainRequest(plan, federation.initial),
        EvaluateRequest(digest, 1, prints, "validation", federation.initial),
    ):
        with pytest.raises(ProtocolError, match="in the clear"):
            federation.members[0].handle(encode(request))
    assert "in the clear" in (tmp_path / "hospitals" / "A" / "hospital.jsonl").read_text()


def test_an_unsealed_hospital_does_not_take_a_seal_for_granted(tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study(sealing={"mode": "off"}))
    plan = RoundPlan(federation.study.digest(), 1, 2, federation.settings.fingerprint, 1.0, 0, 0.1, 0.1)
    request = encode(TrainRequest(plan, federation.initial, b"seal"))
    with pytest.raises(RoundError, match="unsealed study"):
        federation.members[0].handle(request)


def test_two_hospitals_are_not_sealed_and_say_so(tmp_path: Path) -> None:
    result = Federation(tmp_path, make_study(rounds=1), "AB").run()
    assert result.history[0]["sealed"] is False
    with pytest.raises(SettingsError, match="take off its own"):
        make_study(sealing={"mode": "on"}).sealed(2)


@pytest.mark.parametrize("strategy", ["median", "trimmed-mean", "krum"])
def test_strategies_that_compare_updates_are_refused_with_sealing(strategy: str) -> None:
    with pytest.raises(ValueError, match="compares single updates, which sealing hides"):
        make_study(strategy=strategy)
    assert not make_study(strategy=strategy, sealing={"mode": "off"}).sealed(4)


def test_keys_are_private_files_and_a_roster_does_not_change(tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study())
    keys = [*tmp_path.rglob("*.key")]
    assert len(keys) == 5 and all(path.stat().st_mode & 0o777 == 0o600 for path in keys)
    (tmp_path / "hospitals" / "B" / "identity.key").write_bytes(os.urandom(32))
    with pytest.raises(ProtocolError, match="other hospitals or keys"):
        Federation(tmp_path, make_study())
    (tmp_path / "hospitals" / "B" / "identity.key").write_bytes(b"short")
    with pytest.raises(ProtocolError, match="5 bytes, not a key"):
        Federation(tmp_path, make_study())
    del federation


def test_segments_only_grow(tmp_path: Path) -> None:
    assert [next_segment(tmp_path / "segment") for _ in range(3)] == [1, 2, 3]
    (tmp_path / "segment").write_text("x")
    with pytest.raises(ProtocolError, match="does not hold a number"):
        next_segment(tmp_path / "segment")


def test_a_resumed_round_is_the_same_to_the_bit_and_not_opened_over_others(tmp_path: Path) -> None:
    whole = Federation(tmp_path / "whole", make_study(rounds=2)).run()
    broken = Federation(tmp_path / "broken", make_study(rounds=2))
    calls = {"unmask": 0}

    def silent(name: str, kind: str) -> bool:
        # Enrolment, round 1 and its evaluation are opened; round 2 loses its coordinator while unmasking.
        calls["unmask"] += kind == UnmaskRequest.kind and name == "A"
        if calls["unmask"] == 4 and kind == UnmaskRequest.kind and name == "D":
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        broken.run(silent)
    fewer = Federation(tmp_path / "broken", make_study(rounds=2))
    with pytest.raises(NotEnoughHospitalsError, match="was opened over A, B, C, D"):
        fewer.run(lambda name, kind: name == "D" and kind == TrainRequest.kind, resume=True)
    resumed = Federation(tmp_path / "broken", make_study(rounds=2)).run(resume=True)
    for name, array in whole.parameters.items():
        np.testing.assert_array_equal(resumed.parameters[name], array)


def test_a_hospital_that_missed_the_enrolment_can_still_join(tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study(rounds=2))
    begun = {"training": False}

    def silent(name: str, kind: str) -> bool:
        begun["training"] |= kind == TrainRequest.kind
        return name == "D" and not begun["training"]

    result = federation.run(silent)
    segment = next(event for event in result.history if event["event"] == "segment")
    events = [event for event in result.history if event["event"] == "round"]
    assert segment["images"] == 96 and [event["images"] for event in events] == [96, 144]


def test_one_refusal_is_all_that_a_sum_can_draw_from_a_hospital(tmp_path: Path) -> None:
    """Asked for one sum under smaller and smaller bounds, it would tell the norm of its update."""
    federation = Federation(tmp_path, make_study(rounds=1, sealing={"norm_bound": 1e-9}))
    asked: list[str] = []

    def silent(name: str, kind: str) -> bool:
        asked.append(f"{name} {kind}")
        return False

    with pytest.raises(NotEnoughHospitalsError, match="beyond the plan's bound"):
        federation.run(silent)
    assert asked.count(f"A {TrainRequest.kind}") == 1
    ledger = json.loads((tmp_path / "hospitals" / "A" / "sealed.json").read_text())
    assert ledger["last"] == [1, 1, 1], "the refused sum counts as taken part in"


@pytest.mark.parametrize(
    ("name", "value"), [("stem.0.1.running_mean", np.nan), ("stem.0.1.num_batches_tracked", 2**40)]
)
def test_weights_out_of_range_are_refused_before_anything_is_computed(
    name: str, value: float, tmp_path: Path
) -> None:
    federation = Federation(tmp_path, make_study(rounds=1))
    federation.initial = {**federation.initial, name: np.full_like(federation.initial[name], value)}
    with pytest.raises(NotEnoughHospitalsError, match=f"array {name} holds values out of range"):
        federation.run()
    assert not list(tmp_path.glob("hospitals/*/state-*"))


@pytest.mark.parametrize(
    ("sealing", "federation", "reason"),
    [
        ({"threshold": 2}, {}, "sealing.threshold = 2"),
        ({}, {"participation": 0.5}, "participation = 0.5 draws 2 of 4"),
        ({"threshold": 5}, {}, "A threshold of 5 among 4"),
    ],
)
def test_thresholds_that_cannot_be_kept_are_refused_at_the_start(
    sealing: dict[str, Any], federation: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises((SettingsError, ProtocolError), match=reason):
        Federation(tmp_path, make_study(sealing=sealing, **federation))


def test_the_default_threshold_stands_a_liar_with_one_helper() -> None:
    found = {count: threshold_of(make_study(), count) for count in (3, 4, 5, 10, 64)}
    assert found == {3: 3, 4: 3, 5: 4, 10: 6, 64: 33}
    assert all(2 * threshold > count + 1 for count, threshold in found.items())


def test_an_evaluation_that_cannot_be_sealed_is_given_up(tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study(rounds=1))
    hospital, measure = federation.hospitals[1], federation.hospitals[1].measure

    def diverged(request: EvaluateRequest) -> LocalEvaluation:
        return dataclasses.replace(measure(request), loss_sum=2.0**60)

    hospital.measure = diverged  # type: ignore[method-assign]
    result = federation.run()
    (event,) = [event for event in result.history if event["event"] == "round"]
    assert "does not fit the sum" in event["evaluation"]["missing"]["B"]
    assert event["evaluation"]["sealing"]["survivors"] == 3
    ledger = json.loads((tmp_path / "hospitals" / "B" / "sealed.json").read_text())
    assert ledger["last"] == [1, 1, 2]


def test_the_same_weights_are_known_whatever_their_counters_are(tmp_path: Path) -> None:
    """Else a coordinator would raise a counter and measure one model over two sets of hospitals."""
    federation = Federation(tmp_path, make_study(rounds=3, evaluate_every=1))
    counted = {name: array + (array.dtype == np.int64) for name, array in federation.initial.items()}
    gathering = federation.gathering()
    gathering.begin({}, silent_progress)
    plan = plan_round(federation.settings, make_strategy(federation.settings), 1)
    gathering.evaluate(plan, federation.initial, {}, silent_progress)
    federation.engine.silent = lambda name, kind: name == "D"  # type: ignore[method-assign]
    with pytest.raises(NotEnoughHospitalsError, match="or its weights, was opened over A, B, C, D"):
        gathering.evaluate(dataclasses.replace(plan, round=2), counted, {}, silent_progress)


def test_rounds_beyond_the_study_are_not_measured(tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study(rounds=2))
    gathering = federation.gathering()
    gathering.begin({}, silent_progress)
    plan = plan_round(federation.settings, make_strategy(federation.settings), 2)
    with pytest.raises(NotEnoughHospitalsError, match="The study has 2 rounds"):
        gathering.evaluate(dataclasses.replace(plan, round=9), federation.initial, {}, silent_progress)


def test_a_bound_that_the_study_sets_is_the_plans(tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study(rounds=1, sealing={"norm_bound": 50.0}))
    assert federation.setup is not None
    federation.setup = dataclasses.replace(federation.setup, norm_bound=60.0)
    with pytest.raises(NotEnoughHospitalsError, match=r"The study says sealing.norm_bound = 50"):
        federation.run()
