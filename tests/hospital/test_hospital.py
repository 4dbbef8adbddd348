from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedlens.errors import BadUpdateError, ModelError, RoundError, SettingsError
from fedlens.hospital.hospital import Hospital
from fedlens.models.fingerprint import fingerprint
from fedlens.models.parameters import norm_names, to_parameters
from fedlens.protocol.codec import decode, encode
from fedlens.protocol.messages import EvaluateRequest, Evaluation, Parameters, RoundPlan, TrainRequest, Update
from fedlens.study import Study

from .conftest import CLASSES, make_images, make_network

PARAMETERS = to_parameters(make_network())


def plan(study: Study, number: int, personal: tuple[str, ...] = ()) -> RoundPlan:
    return RoundPlan(
        study=study.digest(),
        round=number,
        rounds=4,
        fingerprint=fingerprint(make_network()),
        passes=0.5,
        seed=0,
        learning_rate_start=1e-3,
        learning_rate_end=1e-3,
        personal=personal,
    )


def update(hospital: Hospital, study: Study, number: int, parameters: Parameters = PARAMETERS) -> Update:
    return decode(hospital.handle(encode(TrainRequest(plan(study, number), parameters))), Update)


def test_an_update_is_local_minus_global_with_the_image_count(hospital: Hospital, study: Study) -> None:
    answer = update(hospital, study, 1)
    assert (answer.hospital, answer.images, answer.seen, answer.round) == ("A", 50, 25, 1)
    assert answer.delta.keys() == PARAMETERS.keys()
    floats = [name for name, value in answer.delta.items() if value.dtype == np.float32]
    assert any(np.abs(answer.delta[name]).max() > 0 for name in floats)


def test_a_round_asked_again_gives_the_same_update_even_in_a_new_process(
    hospital: Hospital, study: Study, tmp_path: Path
) -> None:
    update(hospital, study, 1)
    first = update(hospital, study, 2)
    splits = {"train": make_images(50), "validation": make_images(20, seed=1)}
    again = Hospital("A", study, make_network(seed=5), splits, tmp_path / "A", batch_size=8)
    second = update(again, study, 2)
    assert all(np.array_equal(first.delta[name], second.delta[name]) for name in first.delta)


def test_optimiser_moments_are_kept_at_home_only_when_asked(study: Study, tmp_path: Path) -> None:
    reset = study.model_copy(
        update={"federation": study.federation.model_copy(update={"optimizer_state": "reset"})}
    )
    deltas = []
    for name, settings in (("keep", study), ("reset", reset)):
        splits = {"train": make_images(50), "validation": make_images(20, seed=1)}
        hospital = Hospital("A", settings, make_network(), splits, tmp_path / name, batch_size=8)
        update(hospital, settings, 1)
        deltas.append(update(hospital, settings, 2).delta)
    assert any(not np.array_equal(deltas[0][name], deltas[1][name]) for name in deltas[0])


def test_personal_arrays_never_leave_and_are_used_at_home(study: Study, tmp_path: Path) -> None:
    fedbn = study.model_copy(update={"federation": study.federation.model_copy(update={"strategy": "fedbn"})})
    splits = {"train": make_images(50), "validation": make_images(20, seed=1)}
    hospital = Hospital("A", fedbn, make_network(seed=5), splits, tmp_path / "A", batch_size=8)
    personal = tuple(sorted(norm_names(make_network())))
    request = TrainRequest(plan(fedbn, 1, personal), PARAMETERS)
    answer = decode(hospital.handle(encode(request)), Update)
    assert not set(answer.delta) & set(personal)
    state = to_parameters(hospital.network_with(PARAMETERS, 1))
    assert any(not np.array_equal(state[name], PARAMETERS[name]) for name in personal)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"round": 0}, "rounds"),
        ({"round": 5}, "rounds"),
        ({"rounds": 8}, "rounds"),
        ({"passes": 1e-6}, "passes"),
        ({"seed": 7}, "seed"),
        ({"learning_rate_start": 0.5}, "learning rate"),
        ({"learning_rate_end": -0.1}, "learning rate"),
        ({"proximal_mu": 10.0}, "proximal_mu"),
        ({"personal": ("output.bias",)}, "personal arrays"),
    ],
    ids=str,
)
def test_a_round_that_the_study_does_not_have_is_refused(
    hospital: Hospital, study: Study, change: dict[str, Any], named: str
) -> None:
    changed = dataclasses.replace(plan(study, 1), **change)
    with pytest.raises(BadUpdateError, match=f"its {named} are not the study's"):
        hospital.handle(encode(TrainRequest(changed, PARAMETERS)))


def test_weights_that_are_left_out_are_not_made_up_from_the_last_round(
    hospital: Hospital, study: Study
) -> None:
    fewer = {name: array for name, array in PARAMETERS.items() if name != "output.bias"}
    with pytest.raises(ModelError, match=r"missing output\.bias"):
        hospital.handle(encode(TrainRequest(plan(study, 1), fewer)))


def test_an_evaluation_holds_counts_and_no_image(hospital: Hospital, study: Study) -> None:
    request = EvaluateRequest(study.digest(), 1, fingerprint(make_network()), "validation", PARAMETERS)
    answer = decode(hospital.handle(encode(request)), Evaluation)
    assert set(answer.counts) == {"confusion", "positives", "negatives"}
    assert answer.counts["confusion"].shape == (CLASSES, CLASSES)
    assert answer.counts["confusion"].sum() == 20
    assert answer.loss_sum > 0


def test_another_study_another_network_another_split_and_garbage_are_refused(
    hospital: Hospital, study: Study
) -> None:
    print_of_network = fingerprint(make_network())
    with pytest.raises(BadUpdateError, match="study"):
        hospital.handle(encode(EvaluateRequest("other", 1, print_of_network, "validation", PARAMETERS)))
    with pytest.raises(BadUpdateError, match="fingerprint"):
        hospital.handle(encode(EvaluateRequest(study.digest(), 1, "other", "validation", PARAMETERS)))
    with pytest.raises(SettingsError, match="test"):
        hospital.handle(encode(EvaluateRequest(study.digest(), 1, print_of_network, "test", PARAMETERS)))
    with pytest.raises(RoundError):
        hospital.handle(b"not a message")
