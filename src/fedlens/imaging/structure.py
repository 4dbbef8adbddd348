"""Which thumbnails show the same picture, whatever its brightness, contrast and orientation.

A thumbnail's *structure* is what is left of it without its slow shading (a Gaussian of 4 pixels),
as a vector of unit length: brightness and contrast drop out. Two pictures are alike when their
structures correlate, as they are or with one mirrored left to right.

Candidates come from the 16 x 16 lowest DCT coefficients of the structure, compared all with all in
blocks of matrix products. A mirrored picture has the same coefficients with the odd columns negated,
so one product of the even columns and one of the odd serve both orientations. Each candidate is then
confirmed on the whole structure.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from fedlens.progress import Progress, silent

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

ALIKE = np.dtype(
    [("first", np.int64), ("second", np.int64), ("similarity", np.float32), ("mirrored", np.bool_)]
)

_SHADING_PIXELS = 4.0
_FLAT_GREY_LEVELS = 1.0
_LOW = 16
# The low coefficients of two alike structures may agree a little less than the whole.
_MARGIN = 0.05
_BLOCK_ROWS = 512
_CONFIRM_PAIRS = 4096


def structures(thumbnails: Pixels) -> Floats:
    """Structure of each thumbnail.

    Args:
        thumbnails: uint8 (N, S, S).

    Returns:
        float32 (N, S * S), each row of length 1; zero for a picture without structure (less than one
        grey level of it).
    """
    count, side, _ = thumbnails.shape
    out = np.zeros((count, side * side), np.float32)
    for row, thumbnail in zip(out, thumbnails, strict=True):
        grey = thumbnail.astype(np.float32)
        detail = grey - cv2.GaussianBlur(grey, (0, 0), _SHADING_PIXELS)
        detail -= detail.mean()
        if detail.std() >= _FLAT_GREY_LEVELS:
            row[:] = (detail / np.linalg.norm(detail)).ravel()
    return out


def alike(
    rows: Floats, threshold: float, *, progress: Progress = silent, step: str = "compare"
) -> npt.NDArray[np.void]:
    """All pairs of structures that correlate by at least ``threshold``.

    Args:
        rows: From ``structures``, float32 (N, S * S).
        threshold: Smallest correlation, 0..1.
        progress: Told of every block of rows.
        step: What to call it.

    Returns:
        ``ALIKE`` records with first < second, ordered by both.
    """
    even, odd = _low_frequencies(rows)
    found = [np.zeros(0, ALIKE)]
    for start in range(0, len(rows), _BLOCK_ROWS):
        end = min(start + _BLOCK_ROWS, len(rows))
        same = even[start:end] @ even[start:].T
        turned = odd[start:end] @ odd[start:].T
        # |odd| makes the larger of both orientations at once.
        near = same + np.abs(turned) >= threshold - _MARGIN
        first, second = np.nonzero(np.triu(near, k=1))
        found += _confirm(rows, first + start, second + start, threshold)
        progress(step, end, len(rows))
    return np.concatenate(found)


def _low_frequencies(rows: Floats) -> tuple[Floats, Floats]:
    """Even and odd columns of the low DCT coefficients, float32 (N, 128) each, of joint length 1."""
    side = int(np.sqrt(rows.shape[1]))
    low = np.zeros((len(rows), _LOW, _LOW), np.float32)
    for coefficients, row in zip(low, rows, strict=True):
        coefficients[:] = cv2.dct(row.reshape(side, side))[:_LOW, :_LOW]
    length = np.sqrt(np.square(low).sum(axis=(1, 2), keepdims=True))
    low /= np.where(length > 0, length, 1)
    return (
        np.ascontiguousarray(low[:, :, 0::2]).reshape(len(rows), _LOW * _LOW // 2),
        np.ascontiguousarray(low[:, :, 1::2]).reshape(len(rows), _LOW * _LOW // 2),
    )


def _confirm(
    rows: Floats, first: Indices, second: Indices, threshold: float
) -> Iterator[npt.NDArray[np.void]]:
    side = int(np.sqrt(rows.shape[1]))
    for start in range(0, len(first), _CONFIRM_PAIRS):
        one, other = first[start : start + _CONFIRM_PAIRS], second[start : start + _CONFIRM_PAIRS]
        left, right = rows[one], rows[other]
        flipped = right.reshape(-1, side, side)[:, :, ::-1].reshape(right.shape)
        straight = np.einsum("nk,nk->n", left, right)
        mirrored = np.einsum("nk,nk->n", left, flipped)
        pairs = np.zeros(len(one), ALIKE)
        pairs["first"], pairs["second"] = one, other
        pairs["similarity"] = np.maximum(straight, mirrored)
        pairs["mirrored"] = mirrored > straight
        yield pairs[pairs["similarity"] >= threshold]
