"""Experts' outlines, brought to the size of prepared images and maps."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt


def fitted_outline(mask: npt.NDArray[np.bool_], size: int) -> npt.NDArray[np.bool_]:
    """An outline of any shape as a square, squeezed as ``preprocess`` squeezes its image.

    A place counts as inside where at least half of what it stands for is; an outline smaller than a place
    keeps the places that hold most of it, so it never vanishes.

    Args:
        mask: bool (H, W), True inside.
        size: Side of the result, pixels.

    Returns:
        bool (size, size).
    """
    height, width = mask.shape
    shares = mask.astype(np.float32)
    # Area averaging is only right for shrinking, as in ``preprocess``.
    if height > size or width > size:
        shape = (min(width, size), min(height, size))
        shares = np.asarray(cv2.resize(shares, shape, interpolation=cv2.INTER_AREA), np.float32)
    shares = np.asarray(cv2.resize(shares, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)
    most = float(shares.max(initial=0))
    return shares >= min(0.5, most) if most > 0 else np.zeros((size, size), np.bool_)
