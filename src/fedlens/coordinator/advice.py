"""The two steps that advice is fitted from, seen from the coordinator: sums of integers, never an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from fedlens.coordinator.aggregation import check_array, check_sender
from fedlens.decision.totals import BasisTotals, DecisionTotals, ScoreTotals
from fedlens.errors import BadUpdateError
from fedlens.protocol.messages import AdviceBasis, AdviceScores, MeasureRequest
from fedlens.protocol.totals import Layout, advice_layout

T = TypeVar("T", bound=DecisionTotals)


@dataclass(frozen=True)
class AdviceStep(Generic[T]):
    """One of the two steps.

    Attributes:
        name: As a ledger has it.
        answer: What a hospital answers in the clear.
        zero: Totals of no images, of the study's shapes.
    """

    name: str
    answer: type[AdviceBasis] | type[AdviceScores]
    zero: T

    @property
    def layout(self) -> Layout:
        """Of its integers in a sealed sum."""
        return advice_layout(self.zero)


def basis_step(classes: int, features: int) -> AdviceStep[BasisTotals]:
    """The first step, for so many classes and features of the last maps."""
    return AdviceStep("basis", AdviceBasis, BasisTotals.zero(classes, features))


def scores_step(classes: int) -> AdviceStep[ScoreTotals]:
    """The second step."""
    return AdviceStep("scores", AdviceScores, ScoreTotals.zero(classes))


def check_advice(
    answer: AdviceBasis | AdviceScores, hospital: str, request: MeasureRequest, step: AdviceStep[T]
) -> T:
    """A hospital's totals, if they fit the request and are possible.

    Args:
        answer: As decoded.
        hospital: Who was asked.
        request: What was asked.
        step: Whose answer it is.

    Raises:
        BadUpdateError: Names the hospital and what does not fit.
    """
    check_sender(answer, hospital, study=request.study, round=request.round, fingerprint=request.fingerprint)
    wanted = step.zero.numbers()
    if answer.split != request.split or answer.counts.keys() != wanted.keys():
        raise _bad(hospital, f"{step.name} of split {answer.split!r} with arrays {sorted(answer.counts)}")
    for name, array in wanted.items():
        check_array(answer.counts[name], hospital, name, array.shape, np.int64)
    totals = step.zero.from_numbers(answer.counts)
    if answer.seconds < 0 or not totals.possible():
        raise _bad(hospital, f"{step.name} with impossible sums, counts or time")
    return totals


def _bad(hospital: str, what: str) -> BadUpdateError:
    return BadUpdateError(
        f"Hospital {hospital} sent {what}.",
        fix="Check that it runs the same study file and the same version of FedLens.",
    )
