"""The field of an image: where the body is, and what lies around or over it.

Found from one image alone, without learning, so that it can be found in every hospital: the outline of
a chest or a head on black, burnt-in letters and markers, frames and collimation borders, the dark corners
of a dermatoscope, rulers, and hairs. It is a suspicion, good enough to say where heat has no business;
nothing is removed from an image because of it.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fedlens.errors import DataError
from fedlens.study import SMALLEST_FIELD

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

_RIBS = 3
"""From so many groups of strokes within a chest on, they are rib ends."""


@dataclass(frozen=True, eq=False)
class FieldMasks:
    """Regions of one image, each bool (S, S).

    Attributes:
        field: Inside the body, or skin that is neither dark corner nor frame.
        text: Letters, markers, other bright things outside the body, and a ruler's ticks.
        border: Frames and collimation borders along the image's edges.
        corners: Dark corners and vignettes of a dermatoscope.
        hair: Hairs on the skin.
    """

    field: Mask
    text: Mask
    border: Mask
    corners: Mask
    hair: Mask


def find_field(image: Pixels, modality: str) -> FieldMasks:
    """Find the field of one image.

    Takes about 3 ms at 256 pixels; see ``benchmarks/straying.py``.

    Args:
        image: uint8 (S, S), or (S, S, C) with one or three channels, RGB; original or prepared.
        modality: ``dermoscopy`` is taken for skin; all others for a body on a dark ground.

    Raises:
        DataError: Not such an image, or smaller than 32 pixels.
    """
    square = image.ndim in (2, 3) and image.shape[0] == image.shape[1] and image.shape[2:] in ((), (1,), (3,))
    if image.dtype != np.uint8 or not square or len(image) < SMALLEST_FIELD:
        raise DataError(
            f"No field can be found in an image of type {image.dtype} and shape {image.shape}.",
            why="It must be a uint8 square of 32 pixels or more, grey or RGB.",
        )
    grey = _grey(image)
    border = _border(grey)
    if modality == "dermoscopy":
        corners = _corners(grey, border)
        ticks, hair = _thin_lines(grey, border | corners)
        return FieldMasks(~(border | corners), ticks, border, corners, hair)
    body = _body(grey, border, loose=modality == "xray")
    text = _outside_marks(grey, body) & ~border
    if modality == "xray":
        text |= _strokes(grey)
    nothing = np.zeros_like(body)
    return FieldMasks(body & ~border, text, border, nothing, nothing)


def _grey(image: Pixels) -> Pixels:
    if image.ndim == 2:
        return np.ascontiguousarray(image)
    if image.shape[2] == 1:
        return np.ascontiguousarray(image[:, :, 0])
    return _pixels(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY))


def _border(grey: Pixels) -> Mask:
    """Outermost rows and columns that hold one value: collimation, black bars, or a drawn frame.

    Black bars count only where what follows is not as dark: black ground around a head is no border.
    """
    size = len(grey)
    border = np.zeros(grey.shape, np.bool_)
    for turns in range(4):
        rows = np.rot90(grey, turns)[: size // 4]
        low, high = np.percentile(rows, (5, 95), axis=1)
        uniform = high - low < 12
        bars = int(np.argmin(uniform)) if not uniform.all() else 0
        # A bar ends in a step; a ground that only gets brighter does not.
        step = bars and abs(float(np.median(rows[bars])) - float(np.median(rows[bars - 1]))) > 25
        # A thin frame is a grey line after scaling down: it only has to stand out along most of the edge.
        outer, inner = rows[: max(2, size // 40)], np.median(rows[max(2, size // 40)])
        drawn = np.flatnonzero(np.percentile(outer, 20, axis=1) > max(60, inner + 40))
        frame = int(drawn[-1]) + 1 if len(drawn) and inner < 90 else 0
        np.rot90(border, turns)[: max(bars if step else 0, frame)] = True
    return border


def _body(grey: Pixels, border: Mask, *, loose: bool) -> Mask:
    """The largest bright region with all it encloses; the whole image where nothing around it is dark.

    ``loose`` keeps what is only somewhat darker than the body: soft tissue at the rim of a chest film.
    Worked out on at most 128 pixels, as its outline is smooth.
    """
    size = min(len(grey), 128)
    small = _pixels(cv2.resize(grey, (size, size), interpolation=cv2.INTER_AREA))
    edge = _fitted(border, size)
    # A bright frame must not bleed inwards, where it would enclose everything.
    small = _pixels(cv2.GaussianBlur(np.where(edge, small.min(), small), (0, 0), size / 120))
    inner = small[~edge] if not edge.all() else small
    otsu, _ = cv2.threshold(inner.reshape(-1, 1), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    ground = float(np.percentile(inner, 2))
    if ground > 40:
        return np.ones(grey.shape, np.bool_)
    level = ground + (otsu - ground) * (0.35 if loose else 0.4)
    bright = ((small > level) & ~edge).astype(np.uint8)
    if not loose:
        bright = _apart_from_edges(bright)
        # A scalp is thin, and parted from the brain by dark bone: without this it would be opened away.
        bright = _filled(_closed(bright, size / 24), open_edges=False).astype(np.uint8)
    bright = _pixels(cv2.morphologyEx(bright, cv2.MORPH_OPEN, _disc(size / (50 if loose else 25))))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(bright, connectivity=4)
    if count < 2:
        return np.ones(grey.shape, np.bool_)
    main = (labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)
    return _fitted(_filled(_closed(main, size / 16), open_edges=loose), len(grey))


def _apart_from_edges(bright: Pixels) -> Pixels:
    """Without what lies in the outermost rows or columns alone: bars, ghosts, scales."""
    size = len(bright)
    band = round(size / 16)
    kept = bright.copy()
    for turns in range(4):
        rows = np.rot90(kept, turns)
        for depth in range(2, band):
            # A bar that touches the head all the same: long, and mostly dark right behind it.
            bar = rows[depth - 2 : depth].any(axis=0)
            behind = rows[depth : depth + 2].any(axis=0)
            if bar.sum() >= 0.3 * size and (bar & behind).sum() < 0.4 * bar.sum():
                rows[:depth] = 0
    inner = np.zeros_like(kept)
    inner[band:-band, band:-band] = kept[band:-band, band:-band]
    _, labels = cv2.connectedComponents(kept, connectivity=4)
    reaching = np.unique(labels[inner.astype(np.bool_)])
    return np.isin(labels, reaching[reaching > 0]).astype(np.uint8)


def _closed(shape: Pixels, radius: float) -> Pixels:
    """Gaps up to twice ``radius`` wide closed; the image's edge closes nothing."""
    room = round(radius) + 2
    closed = cv2.morphologyEx(np.pad(shape, room), cv2.MORPH_CLOSE, _disc(radius))
    return np.ascontiguousarray(_pixels(closed)[room:-room, room:-room])


def _fitted(mask: Mask, size: int) -> Mask:
    return np.asarray(
        cv2.resize(mask.astype(np.uint8), (size, size), interpolation=cv2.INTER_NEAREST).astype(np.bool_)
    )


def _filled(shape: Pixels, *, open_edges: bool) -> Mask:
    """The shape and all holes in it; with ``open_edges`` also bays that open only at the lower edge."""
    padded = np.pad(shape, 1)
    if open_edges:
        columns = np.flatnonzero(padded[-2])
        if len(columns):
            padded[-1, columns[0] : columns[-1] + 1] = 1
    contours, _ = cv2.findContours(padded, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(padded, contours, -1, 1, cv2.FILLED)
    return padded[1:-1, 1:-1].astype(np.bool_)


def _outside_marks(grey: Pixels, body: Mask) -> Mask:
    """Bright small things on the dark ground outside the body."""
    size = len(grey)
    apart = ~_grown(body, size / 64)
    if not apart.any():
        return apart
    ground = float(np.median(grey[apart]))
    return _grown(_pieces((grey > ground + 60) & apart, most=size / 5, least=size / 60), size / 100)


def _strokes(grey: Pixels) -> Mask:
    """Letters over the rim of a body: small bright strokes with sharp edges, near the image's edges.

    None where there are three groups of them or more: rib ends look the same, and come in rows.
    """
    size = len(grey)
    hat = cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, _disc(size / 36))
    outer = np.ones(grey.shape, np.bool_)
    reach = round(0.25 * size)
    outer[reach:-reach, reach:-reach] = False
    strong = (hat > 45) & (grey > 130) & outer
    pieces = _pieces(strong, most=size / 7, least=size / 40, sharp=grey)
    groups, _ = cv2.connectedComponents(_grown(pieces, size / 40).astype(np.uint8))
    return _grown(pieces, size / 100) if groups - 1 < _RIBS else np.zeros_like(pieces)


def _corners(grey: Pixels, border: Mask) -> Mask:
    """Places near the image's corners, or off a circle, much darker than skin, in touch with a corner."""
    size = len(grey)
    smooth = _pixels(cv2.blur(grey, (max(3, size // 32) | 1,) * 2))
    skin = float(np.percentile(smooth, 75))
    place = (np.arange(size) + 0.5) / size * 2 - 1
    away = np.hypot(place[:, None], place)
    dark = ((smooth < 0.6 * skin) & (away > 0.85)) | border
    _, labels = cv2.connectedComponents(dark.astype(np.uint8))
    touching = {int(labels[row, column]) for row in (0, -1) for column in (0, -1)} - {0}
    return np.isin(labels, list(touching)) & ~border


def _thin_lines(grey: Pixels, ignored: Mask) -> tuple[Mask, Mask]:
    """Ruler ticks and hairs: dark lines, thinner than a lesion's texture is wide (Lee 1997, DullRazor)."""
    size = len(grey)
    hat = np.zeros_like(grey)
    for line in _lines(max(5, round(size / 20)) | 1):
        hat = np.maximum(hat, cv2.subtract(_pixels(cv2.morphologyEx(grey, cv2.MORPH_CLOSE, line)), grey))
    dark = ((hat > 28) & ~ignored).astype(np.uint8)
    thick = _pixels(cv2.morphologyEx(dark, cv2.MORPH_OPEN, _disc(size / 60)))
    dark &= ~_pixels(cv2.dilate(thick, np.ones((3, 3), np.uint8))) & 1
    _, labels, stats, _ = cv2.connectedComponentsWithStats(dark, connectivity=8)
    ticks, hairs = [], []
    for index, (left, top, width, height, area) in enumerate(stats.tolist()):
        longest = max(width, height)
        at_edge = min(left, top, size - left - width, size - top - height) <= 1
        if index and at_edge and size / 40 <= longest < size / 7 and min(width, height) <= size / 40:
            ticks.append((index, left + width / 2, top + height / 2))
        elif index and longest >= size / 6 and area >= longest:
            hairs.append(index)
    return _grown(np.isin(labels, _in_row(ticks, size)), 1), _grown(np.isin(labels, hairs), 1)


def _in_row(ticks: list[tuple[int, float, float]], size: int) -> list[int]:
    """Labels of the ticks that stand at one edge in even distances, five or more."""
    found: list[int] = []
    for along, across in ((1, 2), (2, 1)):
        for near in (True, False):
            row = sorted(
                (tick for tick in ticks if (tick[across] if near else size - tick[across]) < size / 6),
                key=operator.itemgetter(along),
            )
            gaps = np.diff([tick[along] for tick in row])
            if len(row) < 5:
                continue
            usual = float(np.median(gaps))
            if np.median(np.abs(gaps - usual)) <= max(1.0, 0.15 * usual):
                found += [tick[0] for tick in row]
    return found


def _pieces(mask: Mask, *, most: float, least: float, sharp: Pixels | None = None) -> Mask:
    """Connected pieces whose longer side lies between ``least`` and ``most`` pixels.

    With ``sharp``, also only those that are compact, as a rib is not, and steep in that image.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count < 2:
        return mask
    longer = np.maximum(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT])
    keep = (longer >= max(3.0, least)) & (longer <= most)
    if sharp is not None:
        steep = _steepness(sharp)
        # The fewer pixels an image has, the steeper are its soft edges too.
        total = np.bincount(labels.ravel(), (steep > max(40, 40 * 170 / len(sharp))).ravel(), minlength=count)
        area = stats[:, cv2.CC_STAT_AREA]
        keep &= (total >= 0.6 * area) & (area >= 0.18 * np.square(longer, dtype=np.float64))
    keep[0] = False
    return np.asarray(keep[labels])


def _steepness(grey: Pixels) -> npt.NDArray[Any]:
    """Greatest difference within 3 by 3 pixels, uint8 (S, S)."""
    return cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))


def _lines(length: int) -> list[Pixels]:
    """Structuring elements: a horizontal, a vertical and two diagonal lines."""
    flat = np.zeros((length, length), np.uint8)
    flat[length // 2] = 1
    slope = np.eye(length, dtype=np.uint8)
    return [flat, flat.T.copy(), slope, slope[::-1].copy()]


def _disc(radius: float) -> npt.NDArray[Any]:
    side = 2 * max(1, round(radius)) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))


def _grown(mask: Mask, radius: float) -> Mask:
    return np.asarray(cv2.dilate(mask.astype(np.uint8), _disc(radius)).astype(np.bool_))


def _pixels(array: npt.NDArray[Any]) -> Pixels:
    return array.view(np.uint8)
