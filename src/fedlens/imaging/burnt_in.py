"""Whether text may be burnt into an image: a suspicion for a person to look into."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from fedlens.imaging.field import find_field

_LOOKED_AT = 256
_SMALLEST = 5
_IN_A_ROW = 4


def suspected_text(dataset: Dataset, pixels: npt.NDArray[np.uint8], modality: str) -> tuple[str, ...]:
    """Why text may be burnt into the pixels; empty where nothing speaks for it.

    The letters that radiographers put on a film raise it too, and faint or handwritten text may go unseen:
    an empty answer is no proof.

    Args:
        dataset: The header.
        pixels: uint8 (H, W) or (H, W, 3), as ``dicom.pixels`` returns them.
        modality: ``mri``, ``xray``, ``ct`` or ``other``.
    """
    reasons = []
    if str(dataset.get("BurnedInAnnotation") or "").upper() == "YES":
        reasons.append("its header says so (Burned In Annotation)")
    kind = str(dataset.get("SOPClassUID") or "")
    if kind.startswith("1.2.840.10008.5.1.4.1.1.7") or "ConversionType" in dataset:
        reasons.append("a secondary capture, which often is a picture of a screen")
    if min(pixels.shape[:2]) >= _LOOKED_AT // 8:
        square = cv2.resize(pixels, (_LOOKED_AT, _LOOKED_AT), interpolation=cv2.INTER_AREA)
        if find_field(np.asarray(square, np.uint8), modality).text.any():
            reasons.append("bright marks beside or over the body")
    if _letters_in_a_row(pixels):
        reasons.append("bright shapes in a row, like letters")
    return tuple(reasons)


def _letters_in_a_row(pixels: npt.NDArray[np.uint8]) -> bool:
    """Four or more very bright, or very dark, sharp shapes of about one height, side by side on one line.

    At the image's own resolution: text of a header line is a few pixels high, however large the image. Shapes
    are cut out at two levels, since smooth letters are not as bright at their edges, and the other one joins
    them to bright tissue behind.
    """
    grey = np.asarray(pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
    for shown in (grey, 255 - grey):
        top = int(shown.max())
        if any(_row_among(_sharp_shapes(shown, max(128, level))) for level in (top - 8, int(0.75 * top))):
            return True
    return False


def _row_among(shapes: list[tuple[int, int, int, int]]) -> bool:
    """Whether four of the shapes make a line of text."""
    for left, top, width, height in shapes:
        middle = top + height / 2
        row = sorted(
            other[0]
            for other in shapes
            if abs(other[1] + other[3] / 2 - middle) < 0.3 * height
            and 0.6 * height < other[3] < 1.6 * height
            and abs(other[0] - left) < 12 * height
        )
        if len(row) < _IN_A_ROW:
            continue
        near = np.diff(row) < 2.5 * height + width
        if _longest_run(near) + 1 >= _IN_A_ROW:
            return True
    return False


def _sharp_shapes(grey: npt.NDArray[np.uint8], level: int) -> list[tuple[int, int, int, int]]:
    """Left, top, width and height of what is as bright as ``level``, letter-sized and sharply cut."""
    bright = (grey >= level).astype(np.uint8)
    around = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(bright, connectivity=8)
    largest = max(_SMALLEST, min(grey.shape) // 12)
    found = []
    for index, (left, top, width, height, area) in enumerate(stats.tolist()):
        if (
            not index
            or not _SMALLEST <= height <= largest
            or width > 1.6 * height
            or area < 0.15 * width * height
        ):
            continue
        # Edges of letters are steep all round; a bright spot of tissue fades.
        place = np.s_[max(0, top - 1) : top + height + 1, max(0, left - 1) : left + width + 1]
        edge = cv2.dilate((labels[place] == index).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        if np.median(around[place][edge]) > 70:
            found.append((left, top, width, height))
    # Noise makes thousands of specks, and no text is made of so many letters.
    return found if len(found) <= 1000 else []


def _longest_run(flags: npt.NDArray[np.bool_]) -> int:
    longest = run = 0
    for flag in flags:
        run = run + 1 if flag else 0
        longest = max(longest, run)
    return longest
