"""Advice fitted by a whole federation: sealed, in the clear and pooled, and what goes wrong on the way."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedlens.coordinator.checkpoints import advice_folder
from fedlens.coordinator.deciding import advice_said
from fedlens.coordinator.history import Event, without_seconds
from fedlens.coordinator.rounds import RoundsResult
from fedlens.decision.bundle import Basis, DecisionBundle, has_bundle, load_bundle
from fedlens.decision.totals import BasisTotals, ScoreTotals
from fedlens.errors import BadUpdateError, ProtocolError, SettingsError
from fedlens.hospital.decision import LocalAdvice, feature_count
from fedlens.hospital.hospital import Hospital
from fedlens.models.checkpoint import Contract, save_checkpoint
from fedlens.models.registry import build_network
from fedlens.models.weights import weights_digest
from fedlens.progress import Progress
from fedlens.protocol.codec import decode, encode
from fedlens.protocol.messages import (
    AdviceBasis,
    AdviceScores,
    BasisRequest,
    KeysRequest,
    ScoresRequest,
    UnmaskRequest,
)
from fedlens.study import Study
from tests.hospital.explained import CLASSES, SIZE, joined, outlined_images
from tests.trial_federation import TrialFederation, trial_study

NAMES = "ABCD"


def make_study(
    *,
    rounds: int = 1,
    mode: str = "auto",
    patience: int = 0,
    strategy: str = "fedavg",
    measures: str = "none",
    **decision: Any,
) -> Study:
    return trial_study(
        SIZE,
        rounds=rounds,
        mode=mode,
        patience=patience,
        strategy=strategy,
        explanation={"measures": measures},
        decision=decision,
    )


class Federation(TrialFederation):
    """Four hospitals with a handful of images each, other ones for training than for validation."""

    def __init__(self, folder: Path, study: Study, names: str = NAMES) -> None:
        self.folder = folder
        self.study = study
        self.splits = {
            name: {
                "train": outlined_images(folder / "masks", 5 + 3 * place, place),
                "validation": outlined_images(folder / "masks", 4 + 2 * place, 10 + place),
            }
            for place, name in enumerate(names)
        }
        network = self.network()
        hospitals = [self.hospital(name, self.splits[name]) for name in names]
        super().__init__(folder, study, hospitals, network, CLASSES)
        self.settings = dataclasses.replace(self.settings, features=feature_count(network))

    def network(self) -> Any:
        return build_network(self.study.model, classes=len(CLASSES), channels=3, image_size=SIZE, seed=0)

    def hospital(self, name: str, splits: Any) -> Hospital:
        home = self.folder / "hospitals" / name
        return Hospital(name, self.study, self.network(), splits, home, batch_size=8, class_names=CLASSES)

    def pooled(self, parameters: Any, names: str = NAMES) -> DecisionBundle:
        """What all images in one place give."""
        splits = {
            split: joined([self.splits[name][split] for name in names]) for split in ("train", "validation")
        }
        alone = self.hospital("all", splits)
        asked = (self.study.digest(), 1, self.settings.fingerprint, "validation", parameters)
        first = decode(self.plainly(alone, BasisRequest(*asked)), AdviceBasis)
        basis = Basis.fit(BasisTotals.from_numbers(first.counts), self.study.decision)
        request = ScoresRequest(*asked, temperature=basis.temperature, statistics=basis.statistics.numbers())
        second = decode(self.plainly(alone, request), AdviceScores)
        return DecisionBundle.of(
            basis,
            ScoreTotals.from_numbers(second.counts),
            classes=CLASSES,
            weights_sha256=weights_digest(parameters),
            hospitals=len(names),
            settings=self.study.decision,
        )

    def plainly(self, hospital: Hospital, request: Any) -> bytes:
        return hospital.handle(encode(request))

    def kept(self, result: RoundsResult) -> DecisionBundle:
        """What the coordinator keeps."""
        return load_bundle(
            advice_folder(self.folder),
            weights_sha256=weights_digest(result.final_parameters),
            classes=CLASSES,
        )


def decision(result: RoundsResult) -> Event:
    (event,) = [event for event in result.history if event["event"] == "decision"]
    return event


def assert_same(found: DecisionBundle, wanted: DecisionBundle) -> None:
    """To the bit, whether it was written and read in between or not."""
    mine, theirs = (bundle.facts.model_copy(update={"arrays_sha256": ""}) for bundle in (found, wanted))
    assert mine == theirs
    arrays, numbers = (bundle.statistics.numbers() | bundle.scores.numbers() for bundle in (found, wanted))
    for name, array in arrays.items():
        assert array.dtype == numbers[name].dtype and array.tobytes() == numbers[name].tobytes(), name


@pytest.mark.parametrize("mode", ["off", "auto"])
def test_advice_is_that_of_the_pooled_images_to_the_bit(mode: str, tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study(mode=mode, coverage=0.8, shrinkage=0.3))
    result = federation.run()
    pooled = federation.pooled(result.parameters)
    said = decision(result)
    assert result.advice is not None
    assert_same(result.advice, pooled)
    assert_same(federation.kept(result), pooled)
    assert (said["round"], said["reason"], said["temperature"]) == (1, "", pooled.facts.temperature)
    assert (said["training_images"], said["validation_images"]) == (5 + 8 + 11 + 14, 4 + 6 + 8 + 10)
    for step in ("basis", "scores"):
        assert list(said[step]["hospitals"]) == list(NAMES) and said[step]["split"] == "validation"
        assert ("sealing" in said[step]) == (mode == "auto")
    assert result.history[-1]["event"] == "end" and result.history[-2] == said
    assert advice_said(result.history).startswith("Advice was fitted over 4 hospitals: temperature ")


def test_the_advice_belongs_to_the_checkpoint_that_a_run_writes(tmp_path: Path) -> None:
    study = make_study()
    federation = Federation(tmp_path, study)
    result = federation.run()
    contract = Contract(
        model=study.model,
        classes=CLASSES,
        preprocess=study.preprocess,
        preprocess_digest="",
        fingerprint=federation.settings.fingerprint,
    )
    save_checkpoint(tmp_path / "model", result.final_parameters, contract)
    weights = json.loads((tmp_path / "model" / "contract.json").read_text())["weights_sha256"]
    assert result.advice is not None and result.advice.facts.weights_sha256 == weights


def test_a_sealed_study_tells_the_coordinator_nothing_of_one_hospital(tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study())
    said = decision(federation.run())
    assert set(said["basis"]["hospitals"]["A"]) == {"bytes_up", "bytes_down", "seconds"}
    lines = [json.loads(line) for line in (tmp_path / "hospitals" / "B" / "hospital.jsonl").open()]
    assert [line["step"] for line in lines] == ["enrol", "train", "evaluate", "basis", "scores"]
    assert [line["images"] for line in lines[-2:]] == [8, 6]
    ledger = json.loads((tmp_path / "hospitals" / "B" / "sealed.json").read_text())
    assert ledger["last"] == [1, 1, 5]
    assert ledger["opened"]["1/basis"] == ledger["opened"]["1/scores"] == list(NAMES)


def test_keys_travel_with_the_step_before(tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study(rounds=2))
    asked: list[str] = []

    def silent(name: str, kind: str) -> bool:
        if name == "A":
            asked.append(kind)
        return False

    federation.run(silent)
    assert asked.count(KeysRequest.kind) == 1, "the enrolment's; each later sum's came with the one before"
    assert asked[-4:] == [BasisRequest.kind, UnmaskRequest.kind, ScoresRequest.kind, UnmaskRequest.kind]


def test_where_patience_runs_out_the_best_rounds_network_is_advised(tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study(rounds=9, patience=1))
    federation.worsen()
    result = federation.run()
    assert (result.reason, result.rounds, result.best_round, result.final_round) == ("patience", 2, 1, 1)
    assert decision(result)["round"] == 1 and result.advice is not None
    assert_same(result.advice, federation.pooled(result.best_parameters))


def test_a_hospital_away_in_one_step_is_in_the_other(tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study())
    result = federation.run(lambda name, kind: name == "D" and kind == ScoresRequest.kind)
    said = decision(result)
    assert (said["training_images"], said["validation_images"]) == (38, 18)
    assert list(said["basis"]["hospitals"]) == list(NAMES) and list(said["scores"]["hospitals"]) == list(
        "ABC"
    )
    assert said["scores"]["missing"] == {"D": "At advice scores: The line is dead."}
    assert result.advice is not None and result.advice.facts.hospitals == 3


@pytest.mark.parametrize("mode", ["off", "auto"])
def test_a_hospital_that_is_gone_leaves_the_others_advice(mode: str, tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study(mode=mode))
    asked = {"basis": False}

    def silent(name: str, kind: str) -> bool:
        asked["basis"] |= kind == BasisRequest.kind
        return name == "C" and asked["basis"]

    result = federation.run(silent)
    assert result.advice is not None
    assert_same(result.advice, federation.pooled(result.parameters, "ABD"))


@pytest.mark.parametrize(
    ("kind", "mode", "away"), [(BasisRequest.kind, "off", "BCD"), (ScoresRequest.kind, "auto", "CD")]
)
def test_with_too_few_hospitals_the_run_ends_without_advice_and_says_so(
    kind: str, mode: str, away: str, tmp_path: Path
) -> None:
    federation = Federation(tmp_path, make_study(mode=mode))
    result = federation.run(lambda name, asked: name in away and asked == kind)
    said = decision(result)
    assert result.advice is None and not has_bundle(advice_folder(tmp_path))
    assert "hospitals answered usably" in said["reason"] and "The line is dead." in said["reason"]
    assert result.history[-1]["event"] == "end"
    assert advice_said(result.history) == f"No advice was fitted across hospitals: {said['reason']}"

    # With everybody back the run need only be resumed: no round is trained again.
    again = Federation(tmp_path, make_study(mode=mode))
    kinds: set[str] = set()
    result = again.run(lambda name, asked: bool(kinds.add(asked)), resume=True)
    assert result.advice is not None and "train-request" not in kinds
    assert_same(result.advice, again.pooled(result.parameters))
    assert decision(result)["reason"] == ""


def test_a_finished_run_that_is_resumed_asks_nobody(tmp_path: Path) -> None:
    first = Federation(tmp_path, make_study()).run()
    again = Federation(tmp_path, make_study())
    kinds: set[str] = set()
    result = again.run(lambda name, asked: bool(kinds.add(asked)), resume=True)
    assert not kinds and result.history == first.history
    assert first.advice is not None and result.advice is not None
    assert_same(result.advice, first.advice)


def stopping(moment: str, done_at: int) -> Progress:
    """Interrupts a step once so many hospitals have answered."""

    def stop(step: str, done: int, total: int) -> None:
        if step == moment and done == done_at:
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize("mode", ["off", "auto"])
def test_killed_in_either_step_it_resumes_there_and_to_the_same(mode: str, tmp_path: Path) -> None:
    study = make_study(mode=mode)
    whole = Federation(tmp_path / "whole", study).run()
    assert whole.advice is not None
    for place, (moment, done) in enumerate([("advice basis", 2), ("advice scores", 4)]):
        folder = tmp_path / str(place)
        with pytest.raises(KeyboardInterrupt):
            Federation(folder, study).run(progress=stopping(moment, done))
        kinds: set[str] = set()
        result = Federation(folder, study).run(
            lambda name, asked, kinds=kinds: bool(kinds.add(asked)),  # type: ignore[misc]
            resume=True,
        )
        assert "train-request" not in kinds
        assert result.advice is not None
        assert_same(result.advice, whole.advice)
        events = [without_seconds(event) for event in result.history if event["event"] != "segment"]
        before = [without_seconds(event) for event in whole.history if event["event"] != "segment"]
        assert [strip(event) for event in events] == [strip(event) for event in before]


def strip(event: Event) -> Event:
    """Without what a resumed run asks for anew: keys that would have come with the step before."""
    if event["event"] != "decision":
        return event
    return {name: value for name, value in event.items() if name not in ("basis", "scores")}


def test_under_fedbn_there_is_no_common_network_to_advise(tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study(strategy="fedbn"))
    kinds: set[str] = set()
    result = federation.run(lambda name, asked: bool(kinds.add(asked)))
    assert result.advice is None and BasisRequest.kind not in kinds
    assert "no common network" in decision(result)["reason"]
    request = BasisRequest(
        federation.study.digest(), 1, federation.settings.fingerprint, "validation", federation.initial
    )
    with pytest.raises(BadUpdateError, match="not the other hospitals'"):
        federation.hospitals[0].basis(request)


def test_a_study_that_fits_no_advice_asks_for_nothing_and_is_told_nothing(tmp_path: Path) -> None:
    study = make_study(federated=False)
    assert study.digest() == make_study().digest(), "it must not keep a run from being resumed"
    federation = Federation(tmp_path, study)
    result = federation.run()
    assert result.advice is None and advice_said(result.history) == ""
    assert [event["event"] for event in result.history] == ["start", "segment", "round", "end"]
    request = BasisRequest(
        study.digest(), 1, federation.settings.fingerprint, "validation", federation.initial
    )
    with pytest.raises(BadUpdateError, match=r"decision\.federated = false"):
        federation.hospitals[0].basis(request)
    # Switched on later, the finished run is advised without another round.
    later = Federation(tmp_path, make_study()).run(resume=True)
    assert later.advice is not None
    assert [event["event"] for event in later.history if event["event"] != "segment"] == [
        "start",
        "round",
        "decision",
        "end",
    ]


def test_without_validation_images_there_is_no_advice(tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study(mode="off"))
    for splits in federation.splits.values():
        empty = np.zeros(0, np.int64)
        splits["validation"] = dataclasses.replace(
            splits["validation"], rows=empty, labels=empty, records=(), outlines=()
        )
    federation.hospitals = [federation.hospital(name, splits) for name, splits in federation.splits.items()]
    federation.engine = type(federation.engine)(federation.hospitals)
    result = federation.run()
    assert result.advice is None
    assert decision(result)["reason"].startswith("No temperature can be fitted without validation images.")


def lying(hospital: Hospital, step: str, array: str) -> None:
    """From now on the hospital takes 1,000 off every number of an array."""
    honest = getattr(hospital, step)

    def told(request: Any) -> LocalAdvice[Any]:
        local = honest(request)
        lie = {array: getattr(local.totals, array) - 1000}
        return dataclasses.replace(local, totals=dataclasses.replace(local.totals, **lie))

    setattr(hospital, step, told)


@pytest.mark.parametrize(("step", "array"), [("basis", "counts"), ("scores", "lac")])
def test_impossible_totals_are_refused_in_words(step: str, array: str, tmp_path: Path) -> None:
    sealed = Federation(tmp_path / "sealed", make_study())
    lying(sealed.hospitals[2], step, array)
    result = sealed.run()
    said = decision(result)
    assert result.advice is None
    assert said["reason"].startswith(f"Round 1 ({step}): the opened totals contradict each other.")
    assert "a sum does not show which" in said["reason"]

    plain = Federation(tmp_path / "plain", make_study(mode="off"))
    lying(plain.hospitals[2], step, array)
    result = plain.run()
    refused = decision(result)[step]["refused"]
    assert list(refused) == ["C"] and f"sent {step} with impossible sums" in refused["C"]
    assert result.advice is not None


def test_an_answer_to_something_else_is_refused(tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study(mode="off"))
    handle = federation.hospitals[1].handle

    def other(request: bytes, own: bytes = b"") -> bytes:
        answer = handle(request, own)
        if b"advice-basis" in answer[:4096]:
            told = decode(answer, AdviceBasis)
            return encode(dataclasses.replace(told, counts={"sums": told.counts["sums"]}))
        if b"advice-scores" in answer[:4096]:
            return encode(dataclasses.replace(decode(answer, AdviceScores), split="test"))
        return answer

    federation.hospitals[1].handle = other  # type: ignore[method-assign]
    said = decision(federation.run())
    assert "arrays ['sums']" in said["basis"]["refused"]["B"]
    assert "split 'test'" in said["scores"]["refused"]["B"]


def test_what_the_first_step_cannot_have_come_to_is_refused(tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study(mode="off"))
    result = federation.run()
    assert result.advice is not None
    honest = ScoresRequest(
        federation.study.digest(),
        1,
        federation.settings.fingerprint,
        "validation",
        result.parameters,
        temperature=result.advice.facts.temperature,
        statistics=result.advice.statistics.numbers(),
    )
    hospital = federation.hospitals[0]
    assert hospital.scores(honest).totals.possible()
    means, whitening = honest.statistics["means"], honest.statistics["whitening"]
    changes: list[dict[str, Any]] = [
        {"temperature": 1e6},
        {"statistics": {"means": means}},
        {"statistics": {"means": means[:, :4], "whitening": whitening[:4, :4]}},
        {"statistics": {"means": means, "whitening": whitening * np.float32(np.nan)}},
        {"statistics": {"means": means * np.float32(np.nan), "whitening": whitening}},
    ]
    for changed in changes:
        with pytest.raises(BadUpdateError, match="refuses what the first step is said to have come to"):
            hospital.scores(dataclasses.replace(honest, **changed))
    with pytest.raises(SettingsError, match="measures no split 'train'"):
        hospital.scores(dataclasses.replace(honest, split="train"))


@pytest.mark.parametrize("kind", [BasisRequest, ScoresRequest])
def test_an_unsealed_request_is_refused_in_a_sealed_study(kind: type[Any], tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study())
    request = kind(
        federation.study.digest(), 1, federation.settings.fingerprint, "validation", federation.initial
    )
    with pytest.raises(ProtocolError, match="asked for its numbers in the clear"):
        federation.members[0].handle(encode(request))
