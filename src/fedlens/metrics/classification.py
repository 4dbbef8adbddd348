"""Figures that follow from a confusion matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fedlens.errors import DataError

Integers = npt.NDArray[np.integer[Any]]
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

SUMMARY = (
    "accuracy",
    "balanced_accuracy",
    "precision_macro",
    "recall_macro",
    "f1_macro",
    "precision_weighted",
    "recall_weighted",
    "f1_weighted",
)
"""Keys of :func:`summarise`."""

CLASS_RATES = ("precision", "recall", "specificity", "f1")
"""Rates of one class against the rest; recall is also called sensitivity."""


def confusion_matrix(true: Integers, predicted: Integers, classes: int) -> Counts:
    """Counts of images, (classes, classes) int64; rows are true classes, columns predicted ones.

    Raises:
        DataError: Different lengths, or a class outside 0..classes-1.
    """
    if true.shape != predicted.shape:
        raise DataError(f"{true.shape[0]} true classes for {predicted.shape[0]} predictions.")
    for name, values in (("true", true), ("predicted", predicted)):
        if values.size and not (values.min() >= 0 and values.max() < classes):
            raise DataError(f"A {name} class lies outside 0..{classes - 1}.")
    flat = np.bincount(true.astype(np.int64) * classes + predicted, minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.int64)


def class_rates(confusions: npt.NDArray[Any]) -> dict[str, Floats]:
    """Rates of every class, each (..., C) in 0..1, for one or many (..., C, C) confusion matrices.

    A rate whose denominator is zero (a class never predicted, a class without images) is 0.
    """
    counts = confusions.astype(np.float64)
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    support = counts.sum(-1)
    called = counts.sum(-2)
    images = support.sum(-1, keepdims=True)
    return {
        "precision": _ratio(hits, called),
        "recall": _ratio(hits, support),
        "specificity": _ratio(images - support - called + hits, images - support),
        "f1": _ratio(2 * hits, support + called),
    }


def summaries(confusions: npt.NDArray[Any]) -> dict[str, Floats]:
    """:func:`summarise` for many (..., C, C) matrices at once; each value has shape (...)."""
    counts = confusions.astype(np.float64)
    support = counts.sum(-1)
    images = support.sum(-1)
    hits = np.diagonal(counts, axis1=-2, axis2=-1).sum(-1)
    present = (support > 0).astype(np.float64)
    rates = class_rates(counts)
    values = {"accuracy": _ratio(hits, images)}
    for name in ("precision", "recall", "f1"):
        values[f"{name}_macro"] = _ratio((rates[name] * present).sum(-1), present.sum(-1))
        values[f"{name}_weighted"] = _ratio((rates[name] * support).sum(-1), images)
    values["balanced_accuracy"] = values["recall_macro"]
    return {name: values[name] for name in SUMMARY}


def summarise(confusion: npt.NDArray[Any]) -> dict[str, float]:
    """Figures over all classes of one (C, C) confusion matrix, each in 0..1.

    Macro averages and balanced accuracy run over the classes that have images: a class without
    support is left out, not counted as zero. Balanced accuracy is therefore macro recall. Weighted
    averages weigh classes by their images. A zero denominator gives 0.
    """
    return {name: float(value) for name, value in summaries(confusion).items()}


def per_class(confusion: npt.NDArray[Any]) -> list[dict[str, float]]:
    """``precision``, ``recall`` (sensitivity), ``specificity``, ``f1`` and ``support`` of each class."""
    rates = class_rates(confusion)
    support = confusion.sum(-1)
    return [
        {**{name: float(rates[name][index]) for name in CLASS_RATES}, "support": int(support[index])}
        for index in range(len(support))
    ]


def _ratio(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.zeros(np.shape(above), np.float64), where=below > 0)
