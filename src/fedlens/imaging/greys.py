"""From a DICOM file's stored values to greys on a screen: windows, and what they leave out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_rescale, apply_voi_lut

_BEYOND = 1e9
_WHITE = 255
_MOST_GREY = 65535


@dataclass(frozen=True, eq=False)
class Greys:
    """One frame's greys before any window, bright where the image is bright.

    Attributes:
        values: uint16, (H, W).
        offset: Modality value, Hounsfield units for one, of grey 0.
        scale: Modality values from one grey to the next; below 0 for ``MONOCHROME1``.
        centre: Grey in the middle of the file's window; of the range of values where it has none.
        width: Greys from that window's black to its white, above 0.
    """

    values: npt.NDArray[np.uint16]
    offset: float
    scale: float
    centre: float
    width: float


def stretch(values: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.uint8]:
    """Map ``low``..``high`` to 0..255, clipped; all zero where the range is empty."""
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    return np.asarray(np.rint(np.clip((values - low) / (high - low), 0, 1) * 255), np.uint8)


def windowed(values: npt.NDArray[np.generic], dataset: Dataset) -> npt.NDArray[np.uint8]:
    """Stored values (H, W) through the modality's and the viewer's function, as the header gives them.

    Without a window the values are stretched from minimum to maximum, padding left out.

    Returns:
        uint8, (H, W), not inverted.
    """
    levels, place = _levels(values)
    return _spread(_shown(levels, place, dataset), place)


def greys_of(values: npt.NDArray[np.generic], dataset: Dataset) -> Greys:
    """All greys of a frame, with its window.

    Args:
        values: Stored values, (H, W).
        dataset: Its header.
    """
    levels, place = _levels(values)
    numbers = np.nan_to_num(_numbers(levels, dataset), posinf=0.0, neginf=0.0)
    least, most = _ends(numbers)
    whole = most - least <= _MOST_GREY and bool(np.all(numbers == np.rint(numbers)))
    # One value throughout, and no whole one, has no range to divide.
    scale = 1.0 if whole else (most - least) / _MOST_GREY or 1.0
    low, high = _window_ends(levels, place, numbers, dataset)
    offset = least
    if str(dataset.PhotometricInterpretation) == "MONOCHROME1":
        offset, scale = most, -scale
    return Greys(
        values=_spread(np.asarray(np.rint((numbers - offset) / scale), np.uint16), place),
        offset=offset,
        scale=scale,
        centre=((low + high) / 2 - offset) / scale,
        # A window of no width would divide by zero in whatever draws it.
        width=max(abs(high - low) / abs(scale), 1.0),
    )


def _levels(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp] | None]:
    """Stored values to compute with, and where each pixel finds its own among them.

    An image of whole numbers has far fewer levels than pixels; for others the pixels themselves are the
    levels, and their places None.
    """
    if values.dtype.kind not in "iu" or not values.size:
        return values, None
    low, high = int(values.min()), int(values.max())
    if high - low >= values.size:
        return values, None
    return np.arange(low, high + 1).astype(values.dtype), values.astype(np.intp) - low


def _spread(found: npt.NDArray[Any], place: npt.NDArray[np.intp] | None) -> npt.NDArray[Any]:
    """What was found for each level, at each pixel."""
    return found if place is None else np.asarray(found[place])


def _numbers(levels: npt.NDArray[Any], dataset: Dataset) -> npt.NDArray[np.float64]:
    return np.asarray(apply_rescale(levels, dataset), np.float64)


def _shown(
    levels: npt.NDArray[Any], place: npt.NDArray[np.intp] | None, dataset: Dataset
) -> npt.NDArray[np.uint8]:
    """Grey of each level on the screen."""
    numbers = _numbers(levels, dataset)
    if dataset.get("VOILUTSequence"):
        table_bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        return stretch(np.asarray(apply_voi_lut(numbers, dataset), np.float64), 0, 2**table_bits - 1)
    if _has_window(dataset):
        shown = np.asarray(apply_voi_lut(numbers, dataset), np.float64)
        # Values far outside the window come out as the ends of the windowed range.
        low, high = map(float, apply_voi_lut(np.array([-_BEYOND, _BEYOND]), dataset))
        # A rescale slope below 0 turns that range round, and not what the window makes dark and bright.
        return stretch(shown, low, high) if low <= high else stretch(-shown, -low, -high)
    inside = numbers[_present(levels, place, dataset)]
    return stretch(numbers, *_ends(inside)) if inside.size else stretch(numbers, 0, 0)


def _present(
    levels: npt.NDArray[Any], place: npt.NDArray[np.intp] | None, dataset: Dataset
) -> npt.NDArray[np.bool_]:
    """Which levels some pixel has; that of padding left out."""
    present = np.full(levels.shape, place is None)
    if place is not None:
        present[place] = True
    if "PixelPaddingValue" in dataset:
        present &= levels != dataset.PixelPaddingValue
    return present


def _window_ends(
    levels: npt.NDArray[Any],
    place: npt.NDArray[np.intp] | None,
    numbers: npt.NDArray[np.float64],
    dataset: Dataset,
) -> tuple[float, float]:
    """Modality values that come out black and white; nearly so where a curve leads there."""
    if dataset.get("VOILUTSequence"):
        shown = _shown(levels, place, dataset)
        inside = numbers[(shown > 0) & (shown < _WHITE)]
    elif _has_window(dataset):
        centre, width = _first(dataset.WindowCenter), _first(dataset.WindowWidth)
        if not _is_exact(dataset):
            # PS3.3 C.11.2.1.2.1: the linear function is shifted by half a value.
            centre, width = centre - 0.5, width - 1
        return centre - width / 2, centre + width / 2
    else:
        inside = numbers[_present(levels, place, dataset)]
    return _ends(inside if inside.size else numbers)


def _ends(numbers: npt.NDArray[np.float64]) -> tuple[float, float]:
    return float(numbers.min()), float(numbers.max())


def _has_window(dataset: Dataset) -> bool:
    centre, width = dataset.get("WindowCenter"), dataset.get("WindowWidth")
    if centre is None or width is None or (isinstance(width, MultiValue) and not width):
        return False
    return _first(width) > (0 if _is_exact(dataset) else 1)


def _first(value: Any) -> float:
    """The first of several windows, or the only one."""
    return float(value[0] if isinstance(value, MultiValue) else value)


def _is_exact(dataset: Dataset) -> bool:
    """Whether the window's width is meant as it stands: ``LINEAR_EXACT`` and ``SIGMOID``."""
    return str(dataset.get("VOILUTFunction") or "LINEAR") != "LINEAR"
