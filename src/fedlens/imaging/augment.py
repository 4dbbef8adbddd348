"""Training-only augmentation: EFDL section 3.2.

Flip, rotation, zoom and crop are composed into one affine warp per image, so pixels are
interpolated once; brightness is one table look-up.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from fedlens.study import AugmentSettings

Pixels = npt.NDArray[np.uint8]

_DRAWS = 8


def augment(
    pixels: Pixels,
    settings: AugmentSettings,
    rng: np.random.Generator,
    *,
    free_rotation: npt.NDArray[np.bool_],
) -> Pixels:
    """Warp and re-light every image at random.

    Each image takes the same number of draws, whatever the settings are, so no image's
    augmentation depends on another's.

    Args:
        pixels: uint8 (N, S, S, C), C of 1 or 3; not changed.
        settings: Ranges.
        rng: Source of randomness; advanced by a fixed number of draws for each image.
        free_rotation: bool (N,): images without an upright. They turn by any angle (where the
            settings allow) and reflect at their border, as skin goes on; the others lie on black.

    Returns:
        uint8 (N, S, S, C), a new array.
    """
    count, size = pixels.shape[:2]
    draws = rng.random((count, _DRAWS))
    matrices = _matrices(draws, settings, size, free_rotation)
    tables = _tables(draws, settings)
    warped = np.empty(pixels.shape[1:], np.uint8)
    result = np.empty_like(pixels)
    for index in range(count):
        cv2.warpAffine(
            pixels[index],
            matrices[index],
            (size, size),
            dst=warped,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101 if free_rotation[index] else cv2.BORDER_CONSTANT,
        )
        cv2.LUT(warped, tables[index], dst=result[index])
    return result


def _matrices(
    draws: npt.NDArray[np.float64],
    settings: AugmentSettings,
    size: int,
    free_rotation: npt.NDArray[np.bool_],
) -> npt.NDArray[np.float64]:
    """Maps from a result pixel to its source, float64 (N, 2, 3)."""
    signed = 2 * draws - 1
    mirror = np.where(draws[:, 0] < settings.flip, -1.0, 1.0)
    limit = np.where(free_rotation & settings.free_rotation, 180.0, settings.rotation)
    angle = np.radians(limit * signed[:, 1])
    cut = settings.crop * draws[:, 3]
    scale = (1 - cut) / (1 + settings.zoom) ** signed[:, 2]
    centre = (size - 1) / 2
    # The kept window's middle may lie anywhere that keeps the window inside the image.
    middle = centre + cut[:, None] * size / 2 * signed[:, 4:6]
    cosine, sine = np.cos(angle) * scale, np.sin(angle) * scale
    linear = np.stack([mirror * cosine, -sine, mirror * sine, cosine], axis=1).reshape(-1, 2, 2)
    shift = middle - linear.sum(axis=2) * centre
    return np.concatenate([linear, shift[:, :, None]], axis=2)


def _tables(draws: npt.NDArray[np.float64], settings: AugmentSettings) -> Pixels:
    """Brightness look-up tables, uint8 (N, 256)."""
    gain = 1 + settings.brightness * (2 * draws[:, 6:7] - 1)
    offset = 255 * settings.brightness * (2 * draws[:, 7:8] - 1)
    return np.clip(np.rint(np.arange(256) * gain + offset), 0, 255).astype(np.uint8)
