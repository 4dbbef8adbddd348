"""Temperature scaling from sums over hospitals (Guo et al. 2017, "On Calibration of Modern Neural Networks").

Every hospital adds up its images' negative log likelihood at each temperature of a fixed grid. The sums
add up over hospitals, and their minimum is the temperature: one number, which changes no decision.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedlens.decision.scores import scaled
from fedlens.errors import DataError

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

UNITS = 1 << 20
"""A likelihood of 1 nat is this many units."""

MOST_NATS = 1024.0
"""An image's loss is cut to this, so that 2^24 images stay within the 2^54 that sealed totals hold."""

GRID: Floats = np.geomspace(0.25, 4.0, 61)
"""Temperatures at which hospitals add up their likelihood, (61,)."""


def grid_losses(log_p: Floats, labels: Counts) -> Counts:
    """Negative log likelihood summed over images at each temperature of ``GRID``, int64 (61,).

    Each image's value is rounded to 2^-20 before it is added, so grouping changes nothing.

    Args:
        log_p: (N, C) log probabilities or logits.
        labels: int64 (N,), true classes.
    """
    rows = np.arange(len(labels))
    losses = [-scaled(log_p, float(temperature))[rows, labels] for temperature in GRID]
    whole = [np.rint(np.clip(loss, 0.0, MOST_NATS) * UNITS).astype(np.int64).sum() for loss in losses]
    return np.array(whole, np.int64)


def fit_temperature(losses: Counts) -> float:
    """The temperature of least loss: vertex of the parabola through the three lowest points of the grid.

    Args:
        losses: int64 (61,) as ``grid_losses``, summed over hospitals.

    Returns:
        0.25..4; an end of the grid where the loss still falls there.

    Raises:
        DataError: No image was added up.
    """
    if not losses.any():
        raise DataError(
            "No temperature can be fitted without validation images.",
            fix="Raise data.validation in the study file.",
        )
    lowest = int(losses.argmin())
    if lowest in (0, len(GRID) - 1):
        return float(GRID[lowest])
    before, here, after = (float(losses[lowest + step]) for step in (-1, 0, 1))
    bend = before - 2 * here + after
    shift = (before - after) / (2 * bend) if bend > 0 else 0.0
    step = float(np.log(GRID[1] / GRID[0]))
    return float(GRID[lowest] * np.exp(shift * step))
