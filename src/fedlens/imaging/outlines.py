"""Experts' outlines, brought to the size of prepared images and maps."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from fedlens.imaging.formats import read_mask
from fedlens.imaging.manifest import ImageRecord, Manifest


def read_outline(
    manifest: Manifest, record: ImageRecord, shape: tuple[int, ...]
) -> npt.NDArray[np.bool_] | None:
    """The outline that an expert drew on an image of the manifest.

    Args:
        manifest: Where the record is from.
        record: The image.
        shape: (H, W) of the image as read.

    Returns:
        bool (H, W); None where there is none, where it is of another size, or where nothing is inside.

    Raises:
        UnreadableImageError: The outline's file is damaged.
    """
    path = manifest.mask_path(record)
    if path is None or not path.is_file():
        return None
    mask = read_mask(path)
    return mask if mask.shape == tuple(shape) and mask.any() else None


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
