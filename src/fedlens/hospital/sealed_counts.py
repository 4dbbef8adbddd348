"""What a hospital counts in one step of a sealed study: the integers, their layout, a line for its log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedlens.hospital.hospital import Hospital
from fedlens.metrics.explanation import EXPLAINED
from fedlens.protocol.messages import (
    BasisRequest,
    EvaluateRequest,
    ExplainRequest,
    MeasureRequest,
    ScoresRequest,
)
from fedlens.protocol.totals import (
    Layout,
    advice_layout,
    evaluation_layout,
    explain_layout,
    fixed_loss,
)


@dataclass(frozen=True)
class Counted:
    """Integers to seal, their layout, and what the hospital's own log shall say."""

    numbers: dict[str, Any]
    layout: Layout
    said: dict[str, Any]


@dataclass(frozen=True)
class CountedStep:
    """A step in which hospitals count.

    Attributes:
        name: As a ledger has it.
        request: What asks for it.
        count: Does the work.
    """

    name: str
    request: type[MeasureRequest]
    count: Callable[[Hospital, Any], Counted]


def _evaluated(hospital: Hospital, request: EvaluateRequest) -> Counted:
    measured = hospital.measure(request)
    numbers = {"loss": fixed_loss(measured.loss_sum), "milliseconds": round(1000 * measured.seconds)}
    confusion = measured.counts["confusion"]
    images = int(confusion.sum())
    said = {
        "images": images,
        "loss": measured.loss_sum / images if images else None,
        "accuracy": float(np.trace(confusion) / images) if images else None,
    }
    return Counted({**numbers, **measured.counts}, evaluation_layout(hospital.classes), said)


def _explained(hospital: Hospital, request: ExplainRequest) -> Counted:
    totals = hospital.explain(request).totals
    said = {"images": int(totals.column(EXPLAINED)[1].sum()), "strays": totals.mean("strays")}
    return Counted(totals.numbers(), explain_layout(hospital.classes), said)


def _basis(hospital: Hospital, request: BasisRequest) -> Counted:
    totals = hospital.basis(request).totals
    return Counted(totals.numbers(), advice_layout(totals), {"images": int(totals.counts.sum())})


def _scores(hospital: Hospital, request: ScoresRequest) -> Counted:
    totals = hospital.scores(request).totals
    return Counted(totals.numbers(), advice_layout(totals), {"images": int(totals.distances.sum())})


COUNTED = {
    EvaluateRequest.kind: CountedStep("evaluate", EvaluateRequest, _evaluated),
    ExplainRequest.kind: CountedStep("explain", ExplainRequest, _explained),
    BasisRequest.kind: CountedStep("basis", BasisRequest, _basis),
    ScoresRequest.kind: CountedStep("scores", ScoresRequest, _scores),
}
"""By kind of request."""
