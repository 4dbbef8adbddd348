"""The integers that travel beside the values of a sealed sum: counts, losses, exponents.

Each is a 64-bit integer in the ring modulo 2^64, so sums are exact. Both sides know their order from the
network and the study alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedlens.decision.totals import DecisionTotals
from fedlens.errors import ProtocolError
from fedlens.metrics.explanation import COLUMNS
from fedlens.protocol.encoding import EXPONENT_BINS
from fedlens.protocol.messages import Parameters

Integers = npt.NDArray[np.int64]

LOSS_SCALE = 1 << 20
"""Losses are summed in units of 2^-20."""

MOST_COUNTER = 1 << 24
"""Integer buffers stay below this, so that times any image count they stay below what totals hold."""

AUROC_BINS = 1000
# 255 hospitals' integers of this size stay within 63 bits.
_MOST = 1 << 54


@dataclass(frozen=True)
class Layout:
    """Names and shapes of a sum's integers, in order."""

    shapes: Mapping[str, tuple[int, ...]]

    @property
    def size(self) -> int:
        """How many integers there are."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def flatten(self, numbers: Mapping[str, npt.ArrayLike]) -> Integers:
        """One vector, int64 (size,), of all numbers by name.

        Raises:
            ProtocolError: A name or shape that is not the layout's, or a number beyond 2^54.
        """
        if numbers.keys() != self.shapes.keys():
            raise ProtocolError(f"Totals {sorted(numbers)} are not {sorted(self.shapes)}.")
        parts = [np.zeros(0, np.int64)]
        for name, shape in self.shapes.items():
            array = np.asarray(numbers[name])
            fits = array.shape == shape and np.issubdtype(array.dtype, np.integer)
            if not fits or array.max(initial=0) > _MOST or array.min(initial=0) < -_MOST:
                raise ProtocolError(
                    f"Total {name} of shape {array.shape} does not fit the sum.",
                    why=f"It has shape {shape} and integers up to 2^54.",
                )
            parts.append(array.astype(np.int64).ravel())
        return np.concatenate(parts)

    def restore(self, vector: Integers) -> dict[str, Integers]:
        """Numbers by name from a vector of the layout's size."""
        numbers = {}
        start = 0
        for name, shape in self.shapes.items():
            end = start + math.prod(shape)
            numbers[name] = vector[start:end].reshape(shape)
            start = end
        return numbers


def enrol_layout() -> Layout:
    """Image counts of a hospital: training and validation."""
    return Layout({"images": (), "validation": ()})


def train_layout(template: Parameters) -> Layout:
    """Beside an update: what weights it, how training went, counters, and exponents for the next ranges.

    ``counters/NAME`` are integer buffers times the image count, so that their sum gives the mean.
    """
    counters = {f"counters/{name}": template[name].shape for name in counter_names(template)}
    once = dict.fromkeys(("images", "seen", "correct", "loss", "milliseconds", "saturated"), ())
    return Layout({**once, **counters, "exponents": (len(value_names(template)), EXPONENT_BINS)})


def evaluation_layout(classes: int) -> Layout:
    """Counts of an evaluation, as in :class:`~fedlens.protocol.messages.Evaluation`."""
    histogram = (classes, AUROC_BINS)
    return Layout(
        {
            "loss": (),
            "milliseconds": (),
            "confusion": (classes, classes),
            "positives": histogram,
            "negatives": histogram,
        }
    )


def explain_layout(classes: int) -> Layout:
    """Sums and counts of explanation measures by true class and column, as in
    :class:`~fedlens.metrics.explanation_totals.QualityTotals`.
    """
    table = (classes, len(COLUMNS))
    return Layout({"sums": table, "counts": table})


def advice_layout(totals: DecisionTotals) -> Layout:
    """Sums of either step of advice; their shapes follow from classes and features alone."""
    return Layout({name: array.shape for name, array in totals.numbers().items()})


def value_names(template: Parameters) -> list[str]:
    """Floating arrays of an update in the order in which they are sealed."""
    return [name for name in sorted(template) if np.issubdtype(template[name].dtype, np.floating)]


def counter_names(template: Parameters) -> list[str]:
    """Integer arrays of an update, in order."""
    return [name for name in sorted(template) if not np.issubdtype(template[name].dtype, np.floating)]


def fixed_loss(loss_sum: float) -> int:
    """A sum of losses in units of 2^-20."""
    return round(loss_sum * LOSS_SCALE)
