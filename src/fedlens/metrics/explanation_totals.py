"""Sums of explanation measures that add up over hospitals, and the figures that follow from them.

Each image's value is rounded to a whole number of 2^-20 before it is summed, so the order and grouping
of images change nothing: a federation's total equals that of the pooled images exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fedlens.errors import DataError
from fedlens.metrics.explanation import COLUMNS, EXPLAINED, MEASURES, Measure

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

UNITS = 1 << 20
"""A value of 1 is this many units."""

MOST_VALUE = 1024.0
"""Values are cut to this size, so that 2^24 images stay within the 2^54 that sealed totals hold."""

_MOST_IMAGES = 1 << 24
_INDEX = {name: number for number, name in enumerate(COLUMNS)}


@dataclass(frozen=True, eq=False)
class QualityTotals:
    """Sums and counts by true class and column.

    Attributes:
        sums: int64 (classes, columns), in units of 2^-20; columns as in ``COLUMNS``.
        counts: int64 (classes, columns): images on which the column's value is defined.
    """

    sums: Integers
    counts: Integers

    @classmethod
    def zero(cls, classes: int) -> Self:
        """Of no images."""
        shape = (classes, len(COLUMNS))
        return cls(np.zeros(shape, np.int64), np.zeros(shape, np.int64))

    @classmethod
    def of(cls, values: Mapping[str, Floats], labels: Integers, classes: int) -> Self:
        """Totals of one batch of images.

        Args:
            values: float64 (N,) by column; NaN where a column is undefined for an image, as localisation
                is without an outline. Columns left out count no images.
            labels: int64 (N,), true classes 0..classes-1.
            classes: Classes of the study.

        Raises:
            DataError: An unknown column, an infinite value, or different numbers of images.
        """
        totals = cls.zero(classes)
        for name, column in values.items():
            if name not in _INDEX or column.shape != labels.shape or np.isinf(column).any():
                raise DataError(
                    f"Values of {name} of shape {column.shape} cannot be added up.",
                    why=f"There are {len(labels)} labels; values must be finite, or NaN where undefined.",
                )
            defined = ~np.isnan(column)
            whole = np.rint(np.clip(column[defined], -MOST_VALUE, MOST_VALUE) * UNITS).astype(np.int64)
            np.add.at(totals.sums[:, _INDEX[name]], labels[defined], whole)
            np.add.at(totals.counts[:, _INDEX[name]], labels[defined], 1)
        return totals

    @classmethod
    def from_numbers(cls, numbers: Mapping[str, Integers]) -> Self:
        """From the arrays of ``protocol.totals.explain_layout``."""
        return cls(numbers["sums"], numbers["counts"])

    def numbers(self) -> dict[str, Integers]:
        """As the arrays of ``protocol.totals.explain_layout``."""
        return {"sums": self.sums, "counts": self.counts}

    def __add__(self, other: Self) -> Self:
        return type(self)(self.sums + other.sums, self.counts + other.counts)

    def __sub__(self, other: Self) -> Self:
        """What is left without ``other``: the federation's other hospitals, seen from one of them."""
        return type(self)(self.sums - other.sums, self.counts - other.counts)

    def possible(self, hospitals: int = 1) -> bool:
        """Whether so many hospitals' maps can have come to these totals.

        No count is negative or above the class's explained images, nor these above 2^24 a hospital, and no
        sum is beyond what its count allows.
        """
        _, explained = self.column(EXPLAINED)
        # In float64, where the product cannot wrap; rounding keeps the order.
        most = self.counts.astype(np.float64) * (MOST_VALUE * UNITS)
        return bool(
            (self.counts >= 0).all()
            and (self.counts <= explained[:, None]).all()
            and (explained <= _MOST_IMAGES * hospitals).all()
            and (np.abs(self.sums.astype(np.float64)) <= most).all()
        )

    def column(self, name: str) -> tuple[Integers, Integers]:
        """Sums (in units of 2^-20) and counts of one column by class, each int64 (classes,)."""
        return self.sums[:, _INDEX[name]], self.counts[:, _INDEX[name]]

    def mean(self, name: str) -> float | None:
        """Mean of a column over all images it is defined on; None where there are none."""
        sums, counts = self.column(name)
        images = int(counts.sum())
        return int(sums.sum()) / UNITS / images if images else None


def figures(totals: QualityTotals, classes: Sequence[str]) -> dict[str, Any]:
    """Means of every measure taken, with baselines, ready for JSON.

    Args:
        totals: Of a hospital or a federation.
        classes: Names, in the order of the totals' rows.

    Returns:
        By measure name ``value``, ``images``, ``better``, ``by_class`` (values of the classes that have
        any), and where they exist ``threshold``, ``chance``, ``centre``, and ``times_chance``, the
        value in multiples of chance. Measures taken on no image are left out.
    """
    found = {}
    for measure in MEASURES:
        figure = _figure(totals, measure)
        if figure is None:
            continue
        rows = {
            name: _figure(QualityTotals(totals.sums[[row]], totals.counts[[row]]), measure)
            for row, name in enumerate(classes)
        }
        by_class = {name: row["value"] for name, row in rows.items() if row is not None}
        found[measure.name] = {**figure, "better": measure.better, "by_class": by_class}
    return found


def _figure(totals: QualityTotals, measure: Measure) -> dict[str, Any] | None:
    value, threshold = _best(totals, measure, "")
    if value is None:
        return None
    figure: dict[str, Any] = {"value": value, "images": int(totals.column(measure.columns()[0])[1].sum())}
    if measure.thresholds:
        figure["threshold"] = threshold
    if measure.centre:
        figure["centre"] = _best(totals, measure, measure.centre)[0]
    if measure.chance:
        chance = totals.mean(measure.chance)
        figure["chance"] = chance
        figure["times_chance"] = value / chance if chance else None
    return figure


def _best(totals: QualityTotals, measure: Measure, prefix: str) -> tuple[float | None, float | None]:
    """The mean value, and the threshold it is best at (None for measures without one)."""
    means = [totals.mean(column) for column in measure.columns(prefix)]
    if not measure.thresholds or means[0] is None:
        return means[0], None
    best = max(range(len(means)), key=lambda index: means[index] or 0.0)
    return means[best], measure.thresholds[best]
