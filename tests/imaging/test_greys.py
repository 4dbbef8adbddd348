"""Greys of DICOM images beyond the window that a screen shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom import Dataset
from tests.imaging.test_dicom import made, ramp

from fedlens.imaging.dicom import pixels, pixels_and_greys
from fedlens.imaging.greys import Greys


def greys(values: npt.NDArray[Any], **tags: object) -> tuple[npt.NDArray[np.uint8], Greys]:
    shown, found = pixels_and_greys(made(values, **tags), 0, "a.dcm")
    assert found is not None
    return shown, found


def drawn(found: Greys) -> npt.NDArray[np.float64]:
    """What a browser draws of the greys with their own window."""
    black = found.centre - found.width / 2
    return np.clip((found.values - black) / found.width * 255, 0, 255)


WINDOWS: list[dict[str, object]] = [
    {},
    {"WindowCenter": 40, "WindowWidth": 400},
    {"WindowCenter": [40, 500], "WindowWidth": [80, 900]},
    {"WindowCenter": 40, "WindowWidth": 400, "VOILUTFunction": "LINEAR_EXACT"},
    {"WindowCenter": 0, "WindowWidth": 0},
    {"WindowCenter": 5000, "WindowWidth": 10},
    {"RescaleSlope": 2, "RescaleIntercept": -1024, "WindowCenter": -900, "WindowWidth": 400},
    {"RescaleSlope": "0.013", "RescaleIntercept": "0.5", "WindowCenter": 0, "WindowWidth": 3},
    {"RescaleSlope": -1, "RescaleIntercept": 100, "WindowCenter": 40, "WindowWidth": 400},
    {"PixelPaddingValue": -300},
]


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("tags", WINDOWS)
def test_greys_in_their_window_look_as_the_image(tags: dict[str, object], inverted: bool) -> None:
    if inverted:
        tags = {**tags, "PhotometricInterpretation": "MONOCHROME1"}
    shown, found = greys(ramp(), **tags)
    assert np.array_equal(shown, pixels(made(ramp(), **tags), 0, "a.dcm"))
    assert found.values.dtype == np.uint16
    assert np.abs(drawn(found) - shown).max() <= 1.1


def test_greys_give_back_the_units_of_the_file() -> None:
    for sign in ("MONOCHROME1", "MONOCHROME2"):
        tags = {"RescaleIntercept": -1024, "RescaleSlope": 1, "PhotometricInterpretation": sign}
        _, found = greys(ramp(), WindowCenter=40, WindowWidth=80, **tags)
        assert np.array_equal(found.offset + found.scale * found.values, ramp() - 1024.0)
        assert abs(found.scale) == 1


def test_fine_and_wide_values_keep_65536_steps() -> None:
    fine = {"RescaleSlope": "0.001", "RescaleIntercept": 0}
    _, found = greys(ramp(), **fine)
    assert np.abs(found.offset + found.scale * found.values - ramp() * 0.001).max() <= found.scale
    wide = np.arange(600, dtype=np.int32).reshape(20, 30) * 1_000_000
    _, found = greys(wide)
    assert found.values.max() == 65535
    assert np.abs(found.offset + found.scale * found.values - wide).max() <= found.scale


def test_image_of_one_value_has_a_window() -> None:
    for value, slope in ((7, 1), (7, "0.1"), (0, 1)):
        shown, found = greys(np.full((4, 5), value, np.uint8), RescaleSlope=slope, RescaleIntercept=0)
        assert not shown.any()
        assert found.width > 0
        assert np.isfinite([found.centre, found.width, found.offset, found.scale]).all()


def test_curve_of_a_table_is_a_window_from_its_first_to_its_last_step() -> None:
    table = Dataset()
    # 100 entries from the value -50 on, 16 bits each.
    table.LUTDescriptor = [100, -50, 16]
    table.LUTData = np.linspace(0, 65535, 100).astype(np.uint16).tolist()
    shown, found = greys(ramp(), VOILUTSequence=[table])
    assert shown.min() == 0 and shown.max() == 255
    assert np.abs(drawn(found) - shown).max() <= 4


def test_rescale_slope_below_zero_turns_no_window_round() -> None:
    tags = {"RescaleSlope": -1, "RescaleIntercept": 0, "WindowCenter": 0, "WindowWidth": 401}
    shown = pixels(made(ramp(), **tags), 0, "a.dcm")
    wanted = np.clip((-ramp() + 200.5) / 400, 0, 1) * 255
    assert np.abs(shown - wanted).max() <= 1


def test_colour_has_no_greys() -> None:
    values = np.zeros((6, 8, 3), np.uint8)
    dataset = made(values[..., 0], SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    dataset.PixelData = values.tobytes()
    shown, found = pixels_and_greys(dataset, 0, "a.dcm")
    assert shown.shape == (6, 8, 3)
    assert found is None
