"""Outlines at the size of maps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlens.imaging.outlines import fitted_outline


@pytest.mark.parametrize("shape", [(64, 64), (200, 100), (20, 30), (30, 300)])
def test_an_outline_keeps_its_place_and_share(shape: tuple[int, int]) -> None:
    mask = np.zeros(shape, np.bool_)
    mask[: shape[0] // 2, shape[1] // 4 :] = True
    fitted = fitted_outline(mask, 64)
    assert fitted.shape == (64, 64) and fitted.dtype == np.bool_
    assert abs(fitted.mean() - mask.mean()) < 0.03
    assert fitted[:30, 20:].all() and not fitted[34:].any() and not fitted[:, :13].any()


@given(st.integers(0, 99), st.integers(0, 149))
def test_a_single_pixel_never_vanishes(row: int, column: int) -> None:
    mask = np.zeros((100, 150), np.bool_)
    mask[row, column] = True
    fitted = fitted_outline(mask, 16)
    rows, columns = np.nonzero(fitted)
    assert 1 <= len(rows) <= 4
    assert abs(rows.mean() - row / 100 * 16) < 1.5 and abs(columns.mean() - column / 150 * 16) < 1.5


def test_no_outline_stays_none() -> None:
    assert not fitted_outline(np.zeros((40, 50), np.bool_), 32).any()
