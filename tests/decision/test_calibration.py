"""The temperature, from sums over hospitals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from tests.decision.simulated import outputs

from fedlens.decision.calibration import GRID, fit_temperature, grid_losses
from fedlens.decision.scores import scaled
from fedlens.errors import DataError


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7, 3.0])
def test_the_temperature_is_the_one_of_least_loss(temperature: float) -> None:
    log_p, labels = outputs(4000, temperature=temperature)

    def loss(value: float) -> float:
        return float(-scaled(log_p, value)[np.arange(len(labels)), labels].mean())

    exact = minimize_scalar(loss, bounds=(0.25, 4.0), method="bounded").x

    found = fit_temperature(grid_losses(log_p, labels))

    assert found == pytest.approx(exact, rel=2e-3)
    assert found == pytest.approx(temperature, rel=0.1)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**20), st.integers(1, 40))
def test_grouping_of_images_changes_nothing(seed: int, cut: int) -> None:
    log_p, labels = outputs(41, seed=seed)
    parts = grid_losses(log_p[:cut], labels[:cut]) + grid_losses(log_p[cut:], labels[cut:])
    assert (parts == grid_losses(log_p, labels)).all() and parts.dtype == np.int64


def test_ends_of_the_grid_are_kept_to() -> None:
    certain = np.log(np.array([[0.9, 0.1]] * 20))
    right, wrong = np.zeros(20, np.int64), np.ones(20, np.int64)
    assert fit_temperature(grid_losses(certain, right)) == GRID[0]
    assert fit_temperature(grid_losses(certain, wrong)) == GRID[-1]
    with pytest.raises(DataError, match="validation"):
        fit_temperature(grid_losses(certain[:0], right[:0]))


def test_no_decision_changes() -> None:
    log_p, _ = outputs(200)
    assert (scaled(log_p, 2.5).argmax(1) == log_p.argmax(1)).all()
