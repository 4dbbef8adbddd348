from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from tests.coordinator.fakes import CLASSES, FakeHospital, initial_parameters

from fedlens.coordinator.evaluation import RunningCounts, check_evaluation
from fedlens.errors import BadUpdateError
from fedlens.protocol.messages import EvaluateRequest, Evaluation

REQUEST = EvaluateRequest("s", 4, "f", "validation", initial_parameters())


def honest() -> Evaluation:
    return FakeHospital("A", 30).evaluate(REQUEST)


def counts(**changed: Any) -> dict[str, Any]:
    return {"counts": {**honest().counts, **changed}}


def test_honest_counts_pass_and_add_up() -> None:
    running = RunningCounts()
    assert running.figures(CLASSES) == {"images": 0, "loss": None}
    for name in "AB":
        evaluation = FakeHospital(name, 30).evaluate(REQUEST)
        check_evaluation(evaluation, name, REQUEST, 2, running.bins)
        before = {key: array.copy() for key, array in evaluation.counts.items()}
        running.add(evaluation)
    assert running.bins == 4
    assert running.figures(CLASSES)["images"] == 40
    for key, array in before.items():
        np.testing.assert_array_equal(evaluation.counts[key], array)


def test_class_without_images_has_no_auroc() -> None:
    empty = np.zeros((2, 4), np.int64)
    running = RunningCounts()
    running.add(
        dataclasses.replace(
            honest(),
            loss_sum=0.0,
            counts={"confusion": np.zeros((2, 2), np.int64), "positives": empty, "negatives": empty},
        )
    )
    figures = running.figures(CLASSES)
    assert figures["loss"] is None and figures["auroc_macro"] is None
    assert figures["auroc"] == {"normal": None, "ill": None}


LIES: dict[str, dict[str, Any]] = {
    "round": {"round": 3},
    "hospital": {"hospital": "B"},
    "split": {"split": "test"},
    "arrays": {"counts": {}},
    "confusion": counts(confusion=np.zeros((3, 3), np.int64)),
    "positives": counts(positives=np.zeros((2, 5), np.int64)),
    "array positives": counts(positives=np.array(3, np.int64)),
    "array negatives": counts(negatives=np.zeros((2, 4), np.float32)),
    "impossible": counts(confusion=np.array([[11, -1], [2, 8]])),
    "impossible counts": counts(confusion=np.array([[2**62, 2**62], [2, 8]])),
    "different images": counts(confusion=np.array([[10, 1], [2, 8]])),
    "negative loss": {"loss_sum": -1.0},
}


@pytest.mark.parametrize("named", list(LIES))
@pytest.mark.parametrize("bins", [0, 4])
def test_lies_are_refused(named: str, bins: int) -> None:
    if named == "positives" and bins == 0:
        named = "negatives"
        lie = dataclasses.replace(honest(), **LIES["positives"])
    else:
        lie = dataclasses.replace(honest(), **LIES[named])
    with pytest.raises(BadUpdateError, match=named):
        check_evaluation(lie, "A", REQUEST, 2, bins)
