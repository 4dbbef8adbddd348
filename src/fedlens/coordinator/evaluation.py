"""Figures of a round from hospitals' counts (EFDL 3.1, step 7, seen from the coordinator).

Explanations are made where the images are, and stay there; what comes here are sums over images.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fedlens.coordinator.aggregation import MOST_IMAGES, check_array, check_sender
from fedlens.errors import BadUpdateError
from fedlens.metrics import auroc_from_histograms, macro_auroc, summarise
from fedlens.protocol.messages import EvaluateRequest, Evaluation, Parameters

_HISTOGRAMS = ("positives", "negatives")


class RunningCounts:
    """Sums of hospitals' evaluations; the federation's figures are figures of these sums."""

    def __init__(self) -> None:
        self._loss_sum = 0.0
        self._counts: Parameters = {}

    def add(self, evaluation: Evaluation) -> None:
        """Add one hospital's checked evaluation."""
        self._loss_sum += evaluation.loss_sum
        for name, array in evaluation.counts.items():
            self._counts[name] = self._counts[name] + array if name in self._counts else array.copy()

    @property
    def bins(self) -> int:
        """Bins of the histograms so far; 0 before the first evaluation."""
        return self._counts["positives"].shape[1] if self._counts else 0

    def figures(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """As :func:`figures`, over all hospitals added."""
        return figures(self._loss_sum, self._counts, classes) if self._counts else {"images": 0, "loss": None}


def figures(loss_sum: float, counts: Parameters, classes: tuple[str, ...]) -> dict[str, Any]:
    """What a reader wants to know of an evaluation, ready for JSON.

    Returns:
        ``images``, ``loss`` (mean cross entropy, None without images), the figures of
        :func:`fedlens.metrics.summarise`, ``auroc_macro`` (None where no class has one), ``auroc``
        and ``support`` by class name, and ``confusion``, rows true.
    """
    confusion = counts["confusion"]
    images = int(confusion.sum())
    areas = auroc_from_histograms(counts["positives"], counts["negatives"])
    support = confusion.sum(1)
    return {
        "images": images,
        "loss": loss_sum / images if images else None,
        **summarise(confusion),
        "auroc_macro": _number(macro_auroc(areas)),
        "auroc": {name: _number(area) for name, area in zip(classes, areas, strict=True)},
        "support": {name: int(count) for name, count in zip(classes, support, strict=True)},
        "confusion": confusion.tolist(),
    }


def check_evaluation(
    evaluation: Evaluation, hospital: str, request: EvaluateRequest, classes: int, bins: int
) -> None:
    """Refuse counts that do not fit the request or contradict each other.

    Args:
        evaluation: As decoded.
        hospital: Who was asked.
        request: What was asked.
        classes: Classes of the study.
        bins: Bins that other hospitals' histograms have; 0 where this is the first.

    Raises:
        BadUpdateError: Names the hospital, the field or array, and what was expected.
    """
    check_sender(
        evaluation, hospital, study=request.study, round=request.round, fingerprint=request.fingerprint
    )
    counts = evaluation.counts
    if evaluation.split != request.split or counts.keys() != {"confusion", *_HISTOGRAMS}:
        raise _contradiction(hospital, f"split {evaluation.split!r} with arrays {sorted(counts)}")
    check_array(counts["confusion"], hospital, "confusion", (classes, classes), np.int64)
    bins = bins or counts["positives"].size // classes
    for name in _HISTOGRAMS:
        check_array(counts[name], hospital, name, (classes, bins), np.int64)
    if any(array.min(initial=0) < 0 or array.max(initial=0) >= MOST_IMAGES for array in counts.values()):
        raise _contradiction(hospital, "impossible counts")
    if not of_the_same_images(counts):
        raise _contradiction(hospital, "histograms and a confusion matrix of different images")
    if evaluation.loss_sum < 0 or evaluation.seconds < 0:
        raise _contradiction(hospital, "a negative loss or time")


def of_the_same_images(counts: Parameters) -> bool:
    """Whether the histograms of each class hold just the images that the confusion matrix has."""
    support = counts["confusion"].sum(1)
    positives, negatives = (counts[name].sum(1) for name in _HISTOGRAMS)
    return bool((positives == support).all() and (negatives == support.sum() - support).all())


def _contradiction(hospital: str, what: str) -> BadUpdateError:
    return BadUpdateError(
        f"Hospital {hospital} sent an evaluation with {what}.",
        fix="Check that it runs the same study file and the same version of FedLens.",
    )


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
