"""Outlines at the size of maps."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlens.errors import UnreadableImageError
from fedlens.imaging.manifest import ImageRecord, Manifest
from fedlens.imaging.outlines import fitted_outline, read_outline


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


def test_an_outline_is_read_where_it_fits_its_image(tmp_path: Path) -> None:
    mask = np.zeros((40, 50), np.uint8)
    mask[5:9, 10:20] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    cv2.imwrite(str(tmp_path / "blank.png"), np.zeros((40, 50), np.uint8))
    (tmp_path / "torn.png").write_bytes(b"no image")

    def read(name: str, shape: tuple[int, int] = (40, 50)) -> npt.NDArray[np.bool_] | None:
        record = ImageRecord("a", "a.png", "x", "a", "mri", "s", "0", 50, 40, mask=name)
        return read_outline(Manifest(tmp_path, (record,)), record, shape)

    found = read("mask.png")
    assert found is not None and np.array_equal(found, mask > 0)
    assert read("mask.png", (50, 40)) is None, "of another size"
    assert read("blank.png") is None and read("gone.png") is None and read("") is None
    with pytest.raises(UnreadableImageError):
        read("torn.png")
