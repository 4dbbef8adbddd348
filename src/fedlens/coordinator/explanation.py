"""What hospitals' measured maps come to, seen from the coordinator: sums over images, never a map.

Every hospital whose numbers are in the sum is told it, so that it can hold its own against the others'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fedlens.coordinator.aggregation import check_array, check_sender
from fedlens.coordinator.collection import collect
from fedlens.coordinator.gathering import outcome
from fedlens.coordinator.history import Event
from fedlens.coordinator.settings import CoordinatorSettings
from fedlens.engines.engine import Engine
from fedlens.errors import BadUpdateError
from fedlens.metrics.explanation import COLUMNS, EXPLAINED
from fedlens.metrics.explanation_totals import QualityTotals, figures
from fedlens.progress import Progress
from fedlens.protocol.codec import decode
from fedlens.protocol.messages import Explanation, ExplanationTotals, MeasureRequest, Noted


def check_explanation(
    explanation: Explanation, hospital: str, request: MeasureRequest, classes: int
) -> QualityTotals:
    """A hospital's totals, if they fit the request and are possible.

    Args:
        explanation: As decoded.
        hospital: Who was asked.
        request: What was asked.
        classes: Classes of the study.

    Raises:
        BadUpdateError: Names the hospital and what does not fit.
    """
    check_sender(
        explanation, hospital, study=request.study, round=request.round, fingerprint=request.fingerprint
    )
    numbers = explanation.counts
    if explanation.split != request.split or numbers.keys() != {"sums", "counts"}:
        raise _bad(hospital, f"an explanation of split {explanation.split!r} with arrays {sorted(numbers)}")
    for name in ("sums", "counts"):
        check_array(numbers[name], hospital, name, (classes, len(COLUMNS)), np.int64)
    totals = QualityTotals.from_numbers(numbers)
    if explanation.seconds < 0 or not totals.possible():
        raise _bad(hospital, "an explanation with impossible sums, counts or time")
    return totals


def totals_said(settings: CoordinatorSettings, totals: QualityTotals) -> Event:
    """What the history shall say of a federation's totals."""
    return {
        "method": settings.explanation.method,
        "measures": settings.explanation.measures,
        "images": int(totals.column(EXPLAINED)[1].sum()),
        "figures": figures(totals, settings.classes),
    }


def figures_by_hospital(
    settings: CoordinatorSettings, totals: Mapping[str, QualityTotals]
) -> dict[str, Event]:
    """Figures of each hospital, of an unsealed study."""
    return {name: figures(own, settings.classes) for name, own in totals.items()}


def tell_totals(
    engine: Engine, names: Sequence[str], totals: ExplanationTotals, content: bytes, progress: Progress
) -> Event:
    """Tell hospitals what their maps came to together; whoever does not hear of it fails nothing.

    Args:
        engine: Carries messages.
        names: Hospitals whose numbers are in the sum.
        totals: What they are told.
        content: The same as bytes, signed where the study is sealed.
        progress: Told of every hospital's answer.

    Returns:
        ``hospitals`` that noted it, ``missing`` and ``refused``, and wall ``seconds``.
    """

    def accept(hospital: str, answer: bytes) -> Event:
        noted = decode(answer, Noted)
        if (noted.hospital, noted.study, noted.round) != (hospital, totals.study, totals.round):
            raise _bad(hospital, "a note of other totals")
        return {}

    arrived = collect(engine, names, content, accept, step="explanation totals", progress=progress)
    return {**outcome(arrived), "seconds": arrived.seconds}


def _bad(hospital: str, what: str) -> BadUpdateError:
    return BadUpdateError(
        f"Hospital {hospital} sent {what}.",
        fix="Check that it runs the same study file and the same version of FedLens.",
    )
