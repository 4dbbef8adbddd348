"""A saliency map laid over the image as it was taken."""

from __future__ import annotations

import cv2
import matplotlib
import numpy as np
import numpy.typing as npt

from fedlens.errors import ExplanationError

COLOURS = "inferno"
"""Matplotlib's name of the colour map: even steps to the eye, and readable without colour vision."""

OUTLINE = (64, 224, 208)
"""RGB of expert outlines; turquoise occurs neither in ``inferno`` nor in the images."""


def overlay(
    image: npt.NDArray[np.uint8],
    values: npt.NDArray[np.float32],
    *,
    mask: npt.NDArray[np.bool_] | None = None,
    opacity: float = 0.7,
) -> npt.NDArray[np.uint8]:
    """Paint heat over an image, at the image's own resolution.

    Opacity grows with heat, so cold places stay the untouched image.

    Args:
        image: uint8 (H, W) grey or (H, W, 3) RGB; not changed.
        values: float32 (S, S), 0..1, covering the whole image.
        mask: bool (H, W); its outline is drawn, if given.
        opacity: Of the hottest place, 0..1.

    Returns:
        uint8 (H, W, 3) RGB.

    Raises:
        ExplanationError: The mask has another size than the image.
    """
    height, width = image.shape[:2]
    heat = np.clip(cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR), 0, 1)
    ground = image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
    alpha = (opacity * heat)[:, :, None]
    painted = np.rint(ground * (1 - alpha) + colour_table()[np.rint(heat * 255).astype(np.uint8)] * alpha)
    result = painted.astype(np.uint8)
    return result if mask is None else _outlined(result, mask)


def colour_table() -> npt.NDArray[np.uint8]:
    """uint8 (256, 3) RGB: the colour of each heat 0..255."""
    colours = matplotlib.colormaps[COLOURS](np.arange(256), bytes=True)
    table: npt.NDArray[np.uint8] = colours[:, :3]
    return table


def _outlined(image: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    if mask.shape != image.shape[:2]:
        raise ExplanationError(
            f"The outline has shape {mask.shape} and the image {image.shape[:2]}.",
            fix="Give the mask that was drawn on this very image.",
        )
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    thickness = max(1, round(min(mask.shape) / 256))
    outlined = np.ascontiguousarray(image)
    cv2.drawContours(outlined, contours, -1, OUTLINE, thickness)
    return outlined
