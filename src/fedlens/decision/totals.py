"""Sums over a hospital's images that all advice is fitted from; they add up over hospitals.

In two steps, since scores need the temperature and distances the covariance: first ``BasisTotals``, then,
with what was fitted from their sum, ``ScoreTotals``. All are integers of fixed shape, so they can be
sealed as the sums of rounds are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fedlens.decision.calibration import GRID, grid_losses
from fedlens.decision.conformal import score_histogram
from fedlens.decision.modality import COLOUR_BINS, MODALITIES
from fedlens.decision.scores import BINS, bin_of, log_odds
from fedlens.decision.unlike import FeatureTotals, distance_histogram

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


_MOST = float(1 << 54)
"""What sealed totals hold of one hospital: 2^24 validation images of 1,024 nats."""
_MOST_VALIDATION = 1 << 24


class DecisionTotals(ABC):
    """Totals whose fields are int64 arrays that add up."""

    @classmethod
    def from_numbers(cls, numbers: Mapping[str, Counts]) -> Self:
        """From arrays by field name."""
        return cls(**numbers)

    def numbers(self) -> dict[str, Counts]:
        """All arrays by field name, int64, of shapes that follow from the network and its classes."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}  # type: ignore[arg-type]

    def __add__(self, other: Self) -> Self:
        mine, theirs = self.numbers(), other.numbers()
        return self.from_numbers({name: mine[name] + theirs[name] for name in mine})

    @abstractmethod
    def possible(self, hospitals: int = 1) -> bool:
        """Whether so many hospitals' images can have come to these totals."""


@dataclass(frozen=True, eq=False)
class BasisTotals(DecisionTotals):
    """First step.

    Attributes:
        losses: int64 (61,), of validation images, as ``calibration.grid_losses``.
        sums, counts, products: Of training images, as :class:`~fedlens.decision.unlike.FeatureTotals`.
        colours: int64 (5, 256), of training images, as ``modality.colour_histogram``.
    """

    losses: Counts
    sums: Counts
    counts: Counts
    products: Counts
    colours: Counts

    @classmethod
    def zero(cls, classes: int, features: int) -> Self:
        """Of no images."""
        none = FeatureTotals.zero(classes, features)
        colours = np.zeros((len(MODALITIES), COLOUR_BINS), np.int64)
        return cls(np.zeros(len(GRID), np.int64), none.sums, none.counts, none.products, colours)

    @classmethod
    def of(cls, log_p: Floats, labels: Counts, features: FeatureTotals, colours: Counts) -> Self:
        """Of one hospital: validation images' log probabilities (N, C), and sums over training images."""
        losses = grid_losses(log_p, labels)
        return cls(losses, features.sums, features.counts, features.products, colours)

    @property
    def features(self) -> FeatureTotals:
        """What the covariance is fitted from."""
        return FeatureTotals(self.sums, self.counts, self.products)

    def possible(self, hospitals: int = 1) -> bool:
        """Whether so many hospitals' images can have come to these totals.

        Features are as :meth:`FeatureTotals.possible` wants them, colours are of just as many images, and no
        loss is negative or above what a hospital's totals hold.
        """
        losses, colours = self.losses.astype(np.float64), self.colours.astype(np.float64)
        return bool(
            ((losses >= 0) & (losses <= _MOST * hospitals)).all()
            and (colours >= 0).all()
            and colours.sum() == self.counts.sum(dtype=np.float64)
            and self.features.possible(hospitals)
        )


@dataclass(frozen=True, eq=False)
class ScoreTotals(DecisionTotals):
    """Second step, over validation images.

    Attributes:
        lac, aps: int64 (C, 1000), as ``conformal.score_histogram``.
        positives: int64 (C, 1000): log odds of each class on its own images.
        negatives: int64 (C, 1000): on all others.
        certainty: int64 (2, 1000): log odds of the likeliest class where it is wrong and where right.
        distances: int64 (1000,), as ``unlike.distance_histogram``.
    """

    lac: Counts
    aps: Counts
    positives: Counts
    negatives: Counts
    certainty: Counts
    distances: Counts

    @classmethod
    def zero(cls, classes: int) -> Self:
        """Of no images."""
        shapes: dict[str, Any] = {
            **dict.fromkeys(("lac", "aps", "positives", "negatives"), (classes, BINS)),
            "certainty": (2, BINS),
            "distances": (BINS,),
        }
        return cls(**{name: np.zeros(shape, np.int64) for name, shape in shapes.items()})

    @classmethod
    def of(cls, log_p: Floats, labels: Counts, distances: Floats) -> Self:
        """Of some images.

        Args:
            log_p: (N, C) normalised log probabilities at the fitted temperature.
            labels: int64 (N,), true classes.
            distances: (N,) as ``FeatureStatistics.distances``.
        """
        classes = log_p.shape[1]
        filled = bin_of(log_odds(log_p))
        everyone = np.stack([np.bincount(column, minlength=BINS) for column in filled.T])
        own = filled[np.arange(len(labels)), labels]
        positives = np.bincount(labels * BINS + own, minlength=classes * BINS).reshape(classes, BINS)
        top = log_p.argmax(1)
        at_top = filled[np.arange(len(labels)), top]
        certainty = np.stack(
            [np.bincount(at_top[(top == labels) == right], minlength=BINS) for right in (0, 1)]
        )
        return cls(
            lac=score_histogram(log_p, labels, "lac"),
            aps=score_histogram(log_p, labels, "aps"),
            positives=positives.astype(np.int64),
            negatives=(everyone - positives).astype(np.int64),
            certainty=certainty.astype(np.int64),
            distances=distance_histogram(distances),
        )

    def possible(self, hospitals: int = 1) -> bool:
        """Whether so many hospitals' images can have come to these totals.

        No count is negative, each image is counted once in every histogram, under one class, and there are at
        most 2^24 a hospital.
        """
        # In float64, where sums of counts cannot wrap.
        counted = {name: array.astype(np.float64) for name, array in self.numbers().items()}
        own = counted["lac"].sum(1)
        images = own.sum()
        return bool(
            all((array >= 0).all() for array in counted.values())
            and images <= _MOST_VALIDATION * hospitals
            and all((counted[name].sum(1) == own).all() for name in ("aps", "positives"))
            and (counted["negatives"].sum(1) == images - own).all()
            and all(counted[name].sum() == images for name in ("certainty", "distances"))
        )
