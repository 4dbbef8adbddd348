"""Aggregates that compare single updates, for unsealed studies that fear poisoned ones.

============  ==============================================================  =======================
strategy      next model                                                      source
============  ==============================================================  =======================
median        median over hospitals, weight by weight                         Yin et al. 2018
trimmed-mean  mean without the largest and smallest fifth, weight by weight   Yin et al. 2018
krum          the update closest to its neighbours                            Blanchard et al. 2017
============  ==============================================================  =======================

All ignore image counts, since a poisoned hospital may claim any. Sealing hides what they compare, so a
sealed study refuses them (:class:`fedlens.study.Study`). They hold all updates of a round in memory.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedlens.coordinator.aggregation import RunningMean
from fedlens.coordinator.settings import CoordinatorSettings
from fedlens.errors import NotEnoughHospitalsError
from fedlens.protocol.messages import Array, Parameters

_TRIMMED = 0.2


class Aggregate(Protocol):
    """Takes updates one at a time and ends with one."""

    images: int

    def add(self, delta: Parameters, images: int) -> None:
        """Add one hospital's checked update."""
        ...

    def finish(self) -> Parameters:
        """The round's update: float64, and integer counters; ends this object's use."""
        ...


def make_aggregate(settings: CoordinatorSettings, template: Parameters) -> Aggregate:
    """The aggregate that a study's strategy asks for."""
    strategy = settings.federation.strategy
    if strategy in ("median", "trimmed-mean", "krum"):
        return ComparedUpdates(strategy, template)
    return RunningMean(template)


class ComparedUpdates:
    """Median, trimmed mean or Krum over a round's updates.

    Args:
        strategy: ``median``, ``trimmed-mean`` or ``krum``.
        template: Arrays by name with the shapes and dtypes that updates have; not kept.
    """

    def __init__(self, strategy: str, template: Parameters) -> None:
        self.images = 0
        self._strategy = strategy
        self._floating = [name for name in template if np.issubdtype(template[name].dtype, np.floating)]
        self._updates: list[Parameters] = []

    def add(self, delta: Parameters, images: int) -> None:
        """Keep one hospital's checked update."""
        self._updates.append(delta)
        self.images += images

    def finish(self) -> Parameters:
        """The round's update; counters are their median.

        Raises:
            NotEnoughHospitalsError: Krum needs three or more.
        """
        if self._strategy == "krum":
            chosen = self._updates[krum([self._flat(delta) for delta in self._updates])]
            return {
                name: array.astype(np.float64) if name in self._floating else array
                for name, array in chosen.items()
            }
        middle = np.median if self._strategy == "median" else _trimmed_mean
        stacked = {name: np.stack([delta[name] for delta in self._updates]) for name in self._updates[0]}
        return {
            name: middle(array.astype(np.float64), axis=0)
            if name in self._floating
            else np.asarray(np.rint(np.median(array, axis=0)).astype(array.dtype))
            for name, array in stacked.items()
        }

    def _flat(self, delta: Parameters) -> npt.NDArray[np.float64]:
        return np.concatenate([delta[name].ravel() for name in self._floating]).astype(np.float64)


def krum(updates: list[npt.NDArray[np.float64]]) -> int:
    """Index of the update with the smallest sum of squared distances to its nearest others.

    Of n updates, f = (n - 3) // 2 may be poisoned, the most that Krum tolerates; n - f - 2 neighbours
    count.

    Raises:
        NotEnoughHospitalsError: Fewer than three.
    """
    count = len(updates)
    if count < 3:
        raise NotEnoughHospitalsError(
            f"Krum compares {count} updates.",
            why="It needs three or more to find one among its neighbours.",
            fix="Bring more hospitals, or set federation.strategy = 'median'.",
        )
    neighbours = max(1, count - (count - 3) // 2 - 2)
    distances = np.array([[np.square(one - other).sum() for other in updates] for one in updates])
    np.fill_diagonal(distances, np.inf)
    return int(np.sort(distances, axis=1)[:, :neighbours].sum(axis=1).argmin())


def _trimmed_mean(stacked: Array, axis: int) -> Array:
    """Mean without the largest and the smallest fifth, at least one of each where three or more are there."""
    count = stacked.shape[axis]
    cut = min(max(1, int(_TRIMMED * count)), (count - 1) // 2)
    kept = np.sort(stacked, axis=axis)[cut : count - cut]
    return np.asarray(kept.mean(axis=axis))
