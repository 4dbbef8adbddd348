"""One reading of every image: what the audit compares, kept small.

The pixels are read once; what stays is a thumbnail of the whole picture, one of its content
without a dark rim, a digest of the pixels, and the source cues (see ``source_cues``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from fedlens.errors import UnreadableImageError
from fedlens.imaging.formats import locate, read_record
from fedlens.imaging.manifest import ImageRecord, Manifest
from fedlens.progress import Progress, silent

Pixels = npt.NDArray[np.uint8]

THUMBNAIL = 64
CUES = (
    "width",
    "height",
    "aspect ratio",
    "file size",
    "mean intensity",
    "contrast",
    "border intensity",
    "dark share",
    "colour",
)
_DARK = 10
_RIM = 0.05
_BLOCK = 512
_THREADS = 4


@dataclass(frozen=True)
class Scan:
    """What was seen of each image of a manifest, in its order.

    Attributes:
        whole: uint8 (N, 64, 64), luminance of the whole picture squeezed to a square.
        content: uint8 (N, 64, 64), the same of the picture without a dark or empty rim.
        trimmed: bool (N,), whether there was such a rim.
        digests: SHA-256 over shape and pixels, hexadecimal; empty for an unreadable image.
        cues: float64 (N, 9), one column for each of ``CUES``: pixels, pixels, width / height, bytes,
            then grey levels 0..255 (mean, standard deviation, mean of the outer 5 %), the share of
            pixels darker than 10, and the mean spread between colour channels in grey levels.
        unreadable: Reason by index of each image that could not be decoded.
    """

    whole: Pixels
    content: Pixels
    trimmed: npt.NDArray[np.bool_]
    digests: tuple[str, ...]
    cues: npt.NDArray[np.float64]
    unreadable: dict[int, str]


def scan(manifest: Manifest, *, progress: Progress = silent) -> Scan:
    """Read every image of a manifest once; unreadable ones are listed, not raised."""
    count = len(manifest)
    whole = np.zeros((count, THUMBNAIL, THUMBNAIL), np.uint8)
    content = np.zeros_like(whole)
    trimmed = np.zeros(count, bool)
    cues = np.zeros((count, len(CUES)))
    digests = [""] * count
    unreadable: dict[int, str] = {}
    progress("read images", 0, count)
    for index, seen in enumerate(_see_all(manifest)):
        if isinstance(seen, str):
            unreadable[index] = seen
        else:
            whole[index], content[index], trimmed[index] = seen.whole, seen.content, seen.trimmed
            digests[index], cues[index] = seen.digest, seen.cues
        progress("read images", index + 1, count)
    return Scan(whole, content, trimmed, tuple(digests), cues, unreadable)


@dataclass(frozen=True, slots=True)
class _Seen:
    whole: Pixels
    content: Pixels
    trimmed: bool
    digest: str
    cues: tuple[float, ...]


def _see_all(manifest: Manifest) -> Iterator[_Seen | str]:
    def see(record: ImageRecord) -> _Seen | str:
        try:
            return _see(manifest, record)
        except UnreadableImageError as error:
            return error.reason

    with ThreadPoolExecutor(_THREADS) as pool:
        # In blocks, or the pool would hold the results of every image read ahead.
        for start in range(0, len(manifest), _BLOCK):
            yield from pool.map(see, manifest.records[start : start + _BLOCK])


def _see(manifest: Manifest, record: ImageRecord) -> _Seen:
    pixels = read_record(manifest, record)
    grey = pixels if pixels.ndim == 2 else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
    content = _content(grey)
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    height, width = grey.shape
    mean, spread = cv2.meanStdDev(grey)
    cues = (
        width,
        height,
        width / height,
        locate(manifest, record)[0].stat().st_size,
        float(mean[0, 0]),
        float(spread[0, 0]),
        _rim_mean(grey),
        float(np.count_nonzero(grey < _DARK)) / grey.size,
        _colour(pixels),
    )
    return _Seen(_squeeze(grey), _squeeze(content), content.size < grey.size, digest.hexdigest(), cues)


def _squeeze(grey: Pixels) -> Pixels:
    return np.asarray(cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA), np.uint8)


def _content(grey: Pixels) -> Pixels:
    """The picture without rows and columns at its edges that are all but dark."""
    bright = grey > max(_DARK, 0.08 * int(grey.max()))
    rows = np.flatnonzero(bright.mean(axis=1) > 0.02)
    columns = np.flatnonzero(bright.mean(axis=0) > 0.02)
    if len(rows) < 8 or len(columns) < 8:
        return grey
    return grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _rim_mean(grey: Pixels) -> float:
    rim = max(1, round(_RIM * min(grey.shape)))
    if min(grey.shape) <= 2 * rim:
        return float(grey.mean())
    inner = grey[rim:-rim, rim:-rim]
    return float((int(grey.sum()) - int(inner.sum())) / (grey.size - inner.size))


def _colour(pixels: Pixels) -> float:
    if pixels.ndim == 2:
        return 0.0
    red, green, blue = cv2.split(pixels)
    spread = cv2.subtract(cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue))
    return float(spread.mean())
