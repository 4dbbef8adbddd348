"""An image, its map and its outline as bytes that a browser draws."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fedlens.explain.overlay import overlay

LARGEST_SIDE = 2048
"""Pixels of an image's longer side that are sent; larger ones are shrunk."""

_THUMBNAIL_SIDE = 160
_PICTURE_SIDE = 800
_MOST_THUMBNAILS = 2000
_JPEG_QUALITY = 82


class Thumbnails:
    """Small pictures of cases, the last used ones kept in memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, bytes] = OrderedDict()

    def get(self, case_id: str, pixels: Callable[[], npt.NDArray[np.uint8]]) -> bytes:
        """A case's picture as JPEG.

        Args:
            case_id: Of the case.
            pixels: Called where it is not kept: uint8 (H, W) grey or (H, W, 3) RGB.
        """
        with self._lock:
            if case_id in self._kept:
                self._kept.move_to_end(case_id)
                return self._kept[case_id]
        # Outside the lock: two threads may make the same picture, which costs less than all of them waiting.
        made = jpeg(shrunk(pixels(), _THUMBNAIL_SIDE))
        with self._lock:
            self._kept[case_id] = made
            if len(self._kept) > _MOST_THUMBNAILS:
                self._kept.popitem(last=False)
        return made


def shrunk(values: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    """The values with a longer side of at most ``side`` pixels: (H, W) or (H, W, 3), the type kept."""
    height, width = values.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return values
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA), values.dtype)


def jpeg(pixels: npt.NDArray[np.uint8]) -> bytes:
    """uint8 (H, W) grey or (H, W, 3) RGB as JPEG."""
    return _encoded(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])


def overlay_picture(
    pixels: npt.NDArray[np.uint8], values: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_] | None
) -> bytes:
    """The image with its map and outline, for browsers without scripts, as JPEG.

    Args:
        pixels: uint8 (H, W) or (H, W, 3) RGB.
        values: float32 (S, S), 0..1.
        mask: bool (H, W), or None.
    """
    small = shrunk(pixels, _PICTURE_SIDE)
    outline = None
    if mask is not None:
        outline = np.asarray(shrunk(mask.astype(np.uint8) * 255, _PICTURE_SIDE) > 127)
    return jpeg(overlay(small, values, mask=outline))


def heat(values: npt.NDArray[np.float32]) -> bytes:
    """A map's values 0..1 as S x S bytes 0..255, row by row."""
    return np.rint(values * 255).astype(np.uint8).tobytes()


def polygons(mask: npt.NDArray[np.bool_] | None) -> list[list[list[float]]]:
    """An outline as polygons of (x, y) points, as shares of the image's width and height."""
    if mask is None:
        return []
    height, width = mask.shape
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    # Contours run through the middle of pixels.
    return [
        [[round((x + 0.5) / width, 5), round((y + 0.5) / height, 5)] for x, y in contour[:, 0].tolist()]
        for contour in contours
    ]


def _encoded(ending: str, pixels: npt.NDArray[np.uint8], settings: list[int]) -> bytes:
    ordered = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    return bytes(cv2.imencode(ending, ordered, settings)[1].tobytes())
