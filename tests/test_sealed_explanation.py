"""Measured maps of a whole federation: sealed, in the clear and pooled, and what goes wrong on the way."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlens.coordinator.history import Event, without_seconds
from fedlens.coordinator.rounds import RoundsResult
from fedlens.coordinator.schedule import plan_round
from fedlens.coordinator.strategies import make_strategy
from fedlens.errors import NotEnoughHospitalsError, ProtocolError, RoundError
from fedlens.home_explanations import HOME_EXPLANATIONS_NAME
from fedlens.hospital.explanation import LocalExplanation
from fedlens.hospital.hospital import Hospital
from fedlens.hospital.sealed import SealedHospital
from fedlens.metrics.explanation import COLUMNS
from fedlens.metrics.explanation_totals import QualityTotals, figures
from fedlens.models.registry import build_network
from fedlens.progress import Progress
from fedlens.progress import silent as unheard
from fedlens.protocol.codec import decode, encode, sign
from fedlens.protocol.messages import (
    EvaluateRequest,
    ExplainRequest,
    Explanation,
    ExplanationTotals,
    KeysRequest,
    UnmaskRequest,
)
from fedlens.protocol.roster import COORDINATOR, Identity
from fedlens.protocol.sealed_sum import SumSettings
from fedlens.protocol.totals import explain_layout
from fedlens.protocol.vectors import Values
from fedlens.study import Study
from tests.hospital.explained import CLASSES, SIZE, joined, outlined_images
from tests.protocol.federation import TASK
from tests.protocol.federation import Federation as Seals
from tests.trial_federation import TrialFederation, trial_study

NAMES = "ABCD"
COST = COLUMNS.index("cost")


def make_study(*, rounds: int = 1, mode: str = "auto", patience: int = 0, **explanation: Any) -> Study:
    return trial_study(SIZE, rounds=rounds, mode=mode, patience=patience, explanation=explanation)


class Federation(TrialFederation):
    """Four hospitals with a handful of images each, a third of them outlined."""

    def __init__(self, folder: Path, study: Study, names: str = NAMES) -> None:
        self.folder = folder
        self.study = study
        self.images = {
            name: outlined_images(folder / "masks", 5 + 3 * place, place) for place, name in enumerate(names)
        }
        super().__init__(folder, study, [self.hospital(name) for name in names], self.network(), CLASSES)

    def network(self) -> Any:
        return build_network(self.study.model, classes=len(CLASSES), channels=3, image_size=SIZE, seed=0)

    def hospital(self, name: str) -> Hospital:
        images = self.images[name]
        splits = {"train": images, "validation": images}
        home = self.folder / "hospitals" / name
        return Hospital(name, self.study, self.network(), splits, home, batch_size=8, class_names=CLASSES)

    def kept(self, name: str) -> list[Event]:
        text = (self.folder / "hospitals" / name / HOME_EXPLANATIONS_NAME).read_text()
        rounds: list[Event] = json.loads(text)["rounds"]
        return rounds


def explained(result: RoundsResult) -> list[Event]:
    return [
        event["explanation"]
        for event in result.history
        if event["event"] == "round" and "explanation" in event
    ]


def pooled(federation: Federation, parameters: Any, names: str = NAMES) -> Event:
    """Figures of all images in one place."""
    images = joined([federation.images[name] for name in names])
    splits = {"train": images, "validation": images}
    study = federation.study
    alone = Hospital(
        "all",
        study,
        federation.network(),
        splits,
        federation.folder / "all",
        batch_size=8,
        class_names=CLASSES,
    )
    request = ExplainRequest(study.digest(), 1, federation.settings.fingerprint, "validation", parameters)
    answer = decode(alone.handle(encode(request)), Explanation)
    return figures(QualityTotals.from_numbers(answer.counts), CLASSES)


def test_sealed_figures_are_those_of_the_plain_and_of_the_pooled_images(tmp_path: Path) -> None:
    study = make_study()
    plain = Federation(tmp_path / "plain", make_study(mode="off"))
    sealed = Federation(tmp_path / "sealed", study)
    weights = plain.run().parameters
    together = without_seconds(pooled(plain, weights))
    for federation in (plain, sealed):
        said: Event = {}
        plan = plan_round(federation.settings, make_strategy(federation.settings), 1)
        federation.gathering().explain(plan, weights, said, unheard)
        assert without_seconds(said["figures"]) == together
        assert said["images"] == 5 + 8 + 11 + 14 and said["figures"]["pointing"]["images"] > 0
        assert list(said["told"]["hospitals"]) == list(NAMES)
        assert ("by_hospital" in said) == (federation is plain) != ("sealing" in said)
    for name in NAMES:
        (one,), (two,) = plain.kept(name), sealed.kept(name)
        assert without_seconds(one) == without_seconds(two)
        assert without_seconds(one["federation"]) == together != without_seconds(one["own"])


VALUES = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.integers(0, 2),
        st.one_of(st.none(), st.floats(-2000, 2000), st.floats(0, 1)),
        st.floats(0, 1),
    ),
    max_size=30,
)


@settings(deadline=None, max_examples=10)
@given(VALUES)
def test_opened_sums_are_those_of_pooled_values(images: list[tuple[str, int, float | None, float]]) -> None:
    """Whoever has which image, and in which order: the same integers."""

    def totals(names: str) -> QualityTotals:
        mine = [image for image in images if image[0] in names]
        columns: dict[str, npt.NDArray[np.float64]] = {
            "energy": np.array([np.nan if image[2] is None else image[2] for image in mine], np.float64),
            "strays": np.array([image[3] for image in mine], np.float64),
            "empty": np.zeros(len(mine)),
        }
        return QualityTotals.of(columns, np.array([image[1] for image in mine], np.int64), 3)

    federation, layout = Seals(NAMES), explain_layout(3)
    current = federation.keyed(federation.stamp(1, "explain"))
    seal = current.make_plan(SumSettings(16, totals=layout.size), task=TASK)
    for name in NAMES:
        ready = federation.hospitals[name].verify(seal, current.material(name), task=TASK)
        upload, _ = federation.hospitals[name].seal(ready, Values(), totals(name).numbers(), layout)
        current.take_upload(name, encode(upload))
    opened = QualityTotals.from_numbers(layout.restore(federation.open(current).totals))
    pool = totals(NAMES)
    assert opened.possible(4)
    np.testing.assert_array_equal(opened.sums, pool.sums)
    np.testing.assert_array_equal(opened.counts, pool.counts)
    assert figures(opened, CLASSES) == figures(pool, CLASSES)


def test_a_sealed_study_tells_the_coordinator_nothing_of_one_hospital(tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study())
    (said,) = explained(federation.run())
    assert set(said["hospitals"]["A"]) == {"bytes_up", "bytes_down", "seconds"} and "by_hospital" not in said
    lines = [json.loads(line) for line in (tmp_path / "hospitals" / "B" / "hospital.jsonl").open()]
    assert [line["step"] for line in lines] == ["enrol", "train", "evaluate", "explain"]
    assert lines[-1]["images"] == 8 and 0 <= lines[-1]["strays"] <= 1
    ledger = json.loads((tmp_path / "hospitals" / "B" / "sealed.json").read_text())
    assert ledger["last"] == [1, 1, 3] and ledger["opened"]["1/explain"] == list(NAMES)


def test_keys_travel_with_the_step_before(tmp_path: Path) -> None:
    """In steady state each of a round's three sums takes two exchanges, and the totals one more."""
    federation = Federation(tmp_path, make_study(rounds=2, every=1))
    asked: list[str] = []

    def silent(name: str, kind: str) -> bool:
        if name == "A":
            asked.append(kind)
        return False

    federation.run(silent)
    sums = [kind for kind in asked if kind != ExplanationTotals.kind]
    assert asked.count(KeysRequest.kind) == 1 and len(sums) == 4 + 2 * 6
    assert asked.count(ExplanationTotals.kind) == 2


def test_early_stopping_needs_keys_of_its_own(tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study(rounds=9, patience=1))
    federation.worsen()
    result = federation.run()
    assert (result.reason, result.rounds) == ("patience", 2)
    assert len(explained(result)) == 1 and federation.kept("A")[0]["round"] == 2


@pytest.mark.parametrize(
    ("kind", "survivors"),
    [(ExplainRequest.kind, "ABC"), (UnmaskRequest.kind, "ABCD"), (KeysRequest.kind, "ABC")],
)
def test_drop_outs_in_the_explain_step(kind: str, survivors: str, tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study())
    at = {"explain": False, "measured": False}

    def silent(name: str, asked: str) -> bool:
        at["explain"] |= asked == ExplainRequest.kind
        at["measured"] |= asked == EvaluateRequest.kind
        if kind == KeysRequest.kind:
            # Missing where the evaluation is opened, so that keys for the next sum are asked for anew.
            return name == "D" and at["measured"] and asked in (UnmaskRequest.kind, KeysRequest.kind)
        return name == "D" and asked == kind and at["explain"]

    result = federation.run(silent)
    (said,) = explained(result)
    assert list(said["hospitals"]) == list(survivors) == list(said["told"]["hospitals"])
    assert "The line is dead." in said["missing"]["D"]
    assert said["images"] == sum(len(federation.images[name]) for name in survivors)
    again = pooled(federation, result.parameters, survivors)
    assert without_seconds(said["figures"]) == without_seconds(again)
    entry = federation.kept("A")[0]
    assert without_seconds(entry["federation"]) == without_seconds(again)
    home = tmp_path / "hospitals" / "D" / HOME_EXPLANATIONS_NAME
    assert home.exists() == (kind == UnmaskRequest.kind)


def test_a_hospital_out_of_reach_after_the_sum_knows_its_own_only(tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study())
    result = federation.run(lambda name, kind: name == "B" and kind == ExplanationTotals.kind)
    (said,) = explained(result)
    assert list(said["hospitals"]) == list(NAMES)
    assert said["told"]["missing"] == {"B": "The line is dead."}
    assert federation.kept("B")[0]["federation"] is None and federation.kept("C")[0]["federation"]


def test_below_the_threshold_no_figures_are_opened(tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study())
    with pytest.raises(NotEnoughHospitalsError, match=r"\(explain\), explanation: only 2"):
        federation.run(lambda name, kind: name in "CD" and kind == ExplainRequest.kind)
    again = Federation(tmp_path, make_study())
    assert explained(again.run(resume=True))[0]["images"] == 38


def stopping(moment: str) -> Progress:
    """Interrupts the second explain step once two hospitals have answered."""
    begun = {"explain": 0}

    def stop(step: str, done: int, total: int) -> None:
        begun["explain"] += step == "explanation" and done == 0
        if begun["explain"] == 2 and step == moment and done == 2:
            raise KeyboardInterrupt

    return stop


def test_a_round_that_was_killed_in_the_explain_step_resumes_to_the_same(tmp_path: Path) -> None:
    study = make_study(rounds=2, every=1)
    whole = Federation(tmp_path / "whole", study, "ABC").run()
    figures_of = [without_seconds(said["figures"]) for said in explained(whole)]
    for place, moment in enumerate(("explanation", "explanation totals")):
        broken = Federation(tmp_path / str(place), study, "ABC")
        with pytest.raises(KeyboardInterrupt):
            broken.run(progress=stopping(moment))
        federation = Federation(tmp_path / str(place), study, "ABC")
        result = federation.run(resume=True)
        assert [without_seconds(said["figures"]) for said in explained(result)] == figures_of
        for name, array in whole.parameters.items():
            np.testing.assert_array_equal(result.parameters[name], array)
        assert [entry["round"] for entry in federation.kept("C")] == [1, 2]
        assert all(entry["federation"] for entry in federation.kept("C"))


@dataclasses.dataclass
class Forged:
    """Totals that somebody else than the coordinator made."""

    federation: Federation
    totals: QualityTotals

    def by(self, identity: Identity | None) -> bytes:
        told = ExplanationTotals(self.federation.study.digest(), 1, self.totals.numbers())
        return encode(told) if identity is None else sign(told, identity)


def test_totals_that_the_coordinator_did_not_sign_are_refused(tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study())
    federation.run(lambda name, kind: name == "B" and kind == ExplanationTotals.kind)
    member = federation.members[1]
    assert isinstance(member, SealedHospital) and federation.setup is not None
    own = decode((tmp_path / "hospitals" / "B" / "explanation.bin").read_bytes(), Explanation).counts
    everyone = Forged(federation, QualityTotals(10 * own["sums"], 10 * own["counts"]))
    for identity in (None, Identity.generate(COORDINATOR)):
        with pytest.raises(ProtocolError):
            member.handle(everyone.by(identity))
    nobody = Forged(federation, QualityTotals.zero(3))
    with pytest.raises(RoundError, match="no other hospitals' totals"):
        member.handle(nobody.by(federation.setup.identity))
    assert federation.kept("B")[0]["federation"] is None
    refused = (tmp_path / "hospitals" / "B" / "hospital.jsonl").read_text()
    assert refused.count('"refused"') == 3
    member.handle(everyone.by(federation.setup.identity))
    assert federation.kept("B")[0]["federation"]["empty"]["images"] == 80


def test_an_unsealed_request_is_refused_in_a_sealed_study(tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study())
    request = ExplainRequest(
        federation.study.digest(), 1, federation.settings.fingerprint, "validation", federation.initial
    )
    with pytest.raises(ProtocolError, match="asked for its numbers in the clear"):
        federation.members[0].handle(encode(request))


LIES: dict[str, Callable[[QualityTotals], QualityTotals]] = {
    "negative": lambda totals: QualityTotals(totals.sums, totals.counts - 1000),
    "more than explained": lambda totals: QualityTotals(
        totals.sums, totals.counts + 1000 * (np.arange(len(COLUMNS)) == COST)
    ),
    "sums beyond counts": lambda totals: QualityTotals(totals.sums + (1 << 50), totals.counts),
}


@pytest.mark.parametrize("lie", list(LIES))
def test_sums_that_contradict_each_other_are_not_believed(lie: str, tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study())
    explain = federation.hospitals[2].explain

    def lying(request: ExplainRequest) -> LocalExplanation:
        measured = explain(request)
        return dataclasses.replace(measured, totals=LIES[lie](measured.totals))

    federation.hospitals[2].explain = lying  # type: ignore[method-assign]
    with pytest.raises(RoundError, match=r"Round 1 \(explain\): the opened totals contradict each other"):
        federation.run()
    assert federation.kept("A")[0]["federation"] is None


def test_an_explanation_that_cannot_be_sealed_is_given_up(tmp_path: Path) -> None:
    federation = Federation(tmp_path, make_study())
    explain = federation.hospitals[1].explain

    def huge(request: ExplainRequest) -> LocalExplanation:
        measured = explain(request)
        return dataclasses.replace(
            measured, totals=QualityTotals(measured.totals.sums + 2**60, measured.totals.counts)
        )

    federation.hospitals[1].explain = huge  # type: ignore[method-assign]
    (said,) = explained(federation.run())
    assert "does not fit the sum" in said["missing"]["B"] and said["sealing"]["survivors"] == 3
    ledger = json.loads((tmp_path / "hospitals" / "B" / "sealed.json").read_text())
    assert ledger["last"] == [1, 1, 3]
