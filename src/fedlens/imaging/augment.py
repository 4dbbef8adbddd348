"""Training-only augmentation: EFDL section 3.2.

Flip, rotation, zoom and crop are composed into one affine warp per image, so pixels are
interpolated once; brightness is one table look-up.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from fedlens.study import AugmentSettings

Pixels = npt.NDArray[np.uint8]

_DRAWS = 8


@dataclass(frozen=True, eq=False)
class Warps:
    """What augmentation does to each image of a batch.

    Attributes:
        matrices: float64 (N, 2, 3), from a result's pixel to its source.
        tables: uint8 (N, 256), brightness.
        reflect: bool (N,): the image goes on beyond its border; the others lie on black.
    """

    matrices: npt.NDArray[np.float64]
    tables: Pixels
    reflect: npt.NDArray[np.bool_]


def draw_warps(
    size: int, settings: AugmentSettings, rng: np.random.Generator, free_rotation: npt.NDArray[np.bool_]
) -> Warps:
    """Draw every image's augmentation.

    Each image takes the same number of draws, whatever the settings are, so no image's
    augmentation depends on another's.

    Args:
        size: Side of the images, pixels.
        settings: Ranges.
        rng: Source of randomness; advanced by a fixed number of draws for each image.
        free_rotation: bool (N,): images without an upright. They turn by any angle (where the
            settings allow) and reflect at their border, as skin goes on; the others lie on black.
    """
    draws = rng.random((len(free_rotation), _DRAWS))
    return Warps(_matrices(draws, settings, size, free_rotation), _tables(draws, settings), free_rotation)


def warp(pixels: Pixels, warps: Warps) -> Pixels:
    """Images so augmented, uint8 (N, S, S, C), a new array."""
    size = pixels.shape[1]
    warped = np.empty(pixels.shape[1:], np.uint8)
    result = np.empty_like(pixels)
    for index in range(len(pixels)):
        cv2.warpAffine(
            pixels[index],
            warps.matrices[index],
            (size, size),
            dst=warped,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101 if warps.reflect[index] else cv2.BORDER_CONSTANT,
        )
        cv2.LUT(warped, warps.tables[index], dst=result[index])
    return result


def warp_masks(masks: npt.NDArray[np.bool_], warps: Warps) -> npt.NDArray[np.bool_]:
    """Masks moved as their images are; what lies beyond an image that does not go on is outside.

    Args:
        masks: bool (N, S, S); not changed.
        warps: Of the images.

    Returns:
        bool (N, S, S).
    """
    result = np.empty(masks.shape, np.uint8)
    for index, mask in enumerate(masks.view(np.uint8)):
        cv2.warpAffine(
            mask,
            warps.matrices[index],
            mask.shape,
            dst=result[index],
            flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101 if warps.reflect[index] else cv2.BORDER_CONSTANT,
        )
    return result.astype(np.bool_)


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
