"""Deterministic preparation of one image: EFDL section 3.2 and figure 2.

Resize, then normalise, then denoise, then contrast. Resizing comes first, so the costly steps
work on ``size * size`` pixels however large the original is.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from fedlens.errors import DataError, SettingsError
from fedlens.study import PreprocessSettings

if TYPE_CHECKING:
    # Exported networks prepare images where torch is not loaded (export/runtime.py).
    import torch

Pixels = npt.NDArray[np.uint8]

VERSION = 1
"""Raised whenever the same image and settings give other pixels than before."""

_LOW, _HIGH = 0.005, 0.995
# Stretching fewer grey levels than this to 256 would turn the noise of an empty image into texture.
_FLAT = 8


@dataclass(frozen=True, slots=True)
class Profile:
    """How one modality is prepared.

    Attributes:
        stretch: Stretch the 0.5..99.5 percentile to 0..255, jointly over channels.
        clahe_clip: Clip limit of the contrast-limited histogram equalisation.
        clahe_tiles: Tiles along each side.
        colour: Keep colour; contrast then works on the L of CIELAB. Otherwise grey.
    """

    stretch: bool
    clahe_clip: float
    clahe_tiles: int
    colour: bool


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        # Haze is what a radiograph is read for: fine tiles would level it out (docs/log.md).
        "xray": Profile(stretch=True, clahe_clip=1.0, clahe_tiles=2, colour=False),
        "mri": Profile(stretch=True, clahe_clip=2.0, clahe_tiles=8, colour=False),
        "ct": Profile(stretch=True, clahe_clip=2.0, clahe_tiles=8, colour=False),
        # Colour is diagnostic in dermoscopy: no stretch, and only gentle local contrast.
        "dermoscopy": Profile(stretch=False, clahe_clip=1.0, clahe_tiles=8, colour=True),
        "other": Profile(stretch=True, clahe_clip=1.0, clahe_tiles=8, colour=True),
    }
)


def preprocess(image: Pixels, settings: PreprocessSettings, modality: str) -> Pixels:
    """Prepare one image for the network.

    Args:
        image: uint8 (H, W) grey or (H, W, 3) RGB of any size; not changed.
        settings: What to do.
        modality: The image's own, a key of ``PROFILES``; picks the profile where the settings say ``auto``.

    Returns:
        uint8 (size, size, channels); grey is repeated where three channels are asked for.

    Raises:
        DataError: The array is no uint8 image, or the modality is unknown.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise DataError(
            f"An image has shape {image.shape} and type {image.dtype}.",
            why="Preparation takes uint8 images of shape (H, W) or (H, W, 3).",
        )
    if 0 in image.shape:
        raise DataError(f"An image of shape {image.shape} has no pixels.")
    profile = _profile(settings, modality)
    pixels = _resize(np.ascontiguousarray(image), settings.size)
    if pixels.ndim == 3 and not (profile.colour and settings.channels == 3):
        pixels = _pixels(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
    if settings.normalise == "percentile" and profile.stretch:
        pixels = _stretch(pixels)
    pixels = _denoise(pixels, settings.denoise)
    if settings.contrast == "clahe":
        pixels = _contrast(pixels, profile)
    if settings.channels == 1:
        return pixels[:, :, None]
    return pixels if pixels.ndim == 3 else _pixels(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB))


def digest(settings: PreprocessSettings) -> str:
    """SHA-256 (hexadecimal) over everything besides the image that shapes the prepared pixels."""
    content = {
        "version": VERSION,
        "settings": settings.model_dump(mode="json"),
        "profiles": {name: dataclasses.asdict(profile) for name, profile in PROFILES.items()},
        "percentiles": [_LOW, _HIGH, _FLAT],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def to_input(pixels: torch.Tensor) -> torch.Tensor:
    """The fixed intensity normalisation that networks expect: ``(x - 127.5) / 64``.

    Args:
        pixels: uint8 (N, H, W, C), on any device; not changed.

    Returns:
        float32 (N, C, H, W) on the same device, about -2..2, channels-last in memory.
    """
    # Permuting channels-last data to NCHW moves nothing; only the conversion touches memory.
    return pixels.permute(0, 3, 1, 2).float().sub_(127.5).mul_(1 / 64)


def check_modality(name: str) -> None:
    """Refuse what a user gave for a modality and is none.

    Raises:
        SettingsError: With the names that there are.
    """
    if name not in PROFILES:
        raise SettingsError(f"No modality {name!r}.", fix=f"Choose one of {', '.join(PROFILES)}.")


def _profile(settings: PreprocessSettings, modality: str) -> Profile:
    name = modality if settings.profile == "auto" else settings.profile
    if name not in PROFILES:
        raise DataError(
            f"Unknown modality {name!r}.",
            why=f"Preparation knows {', '.join(PROFILES)}.",
            fix="Set preprocess.profile to one of them, or import the images again.",
        )
    return PROFILES[name]


def _resize(pixels: Pixels, size: int) -> Pixels:
    height, width = pixels.shape[:2]
    # Area averaging is only right for shrinking, so a long narrow image takes both steps.
    if height > size or width > size:
        shape = (min(width, size), min(height, size))
        pixels = _pixels(cv2.resize(pixels, shape, interpolation=cv2.INTER_AREA))
    if height < size or width < size:
        pixels = _pixels(cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR))
    return pixels


def _stretch(pixels: Pixels) -> Pixels:
    counts = cv2.calcHist([pixels.reshape(-1, 1)], [0], None, [256], [0, 256])
    cumulative = np.cumsum(counts)
    low, high = np.searchsorted(cumulative, cumulative[-1] * np.array([_LOW, _HIGH]))
    if high - low < _FLAT:
        return pixels
    table = np.clip((np.arange(256) - low) * (255 / (high - low)), 0, 255)
    return _pixels(cv2.LUT(pixels, np.rint(table).astype(np.uint8)))


def _denoise(pixels: Pixels, method: str) -> Pixels:
    if method == "median":
        return _pixels(cv2.medianBlur(pixels, 3))
    if method == "bilateral":
        return _pixels(cv2.bilateralFilter(pixels, 5, 25, 2))
    if method == "nlm" and pixels.ndim == 2:
        return _pixels(cv2.fastNlMeansDenoising(pixels, None, h=6, templateWindowSize=5, searchWindowSize=15))
    if method == "nlm":
        return _pixels(
            cv2.fastNlMeansDenoisingColored(
                pixels, None, h=4, hColor=6, templateWindowSize=5, searchWindowSize=15
            )
        )
    return pixels


def _contrast(pixels: Pixels, profile: Profile) -> Pixels:
    # A CLAHE object holds work buffers that threads must not share, so each image makes its own.
    clahe = cv2.createCLAHE(profile.clahe_clip, (profile.clahe_tiles, profile.clahe_tiles))
    if pixels.ndim == 2:
        return _pixels(clahe.apply(pixels))
    lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)
    lab[:, :, 0] = clahe.apply(np.ascontiguousarray(lab[:, :, 0]))
    return _pixels(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))


def _pixels(array: npt.NDArray[np.generic]) -> Pixels:
    """What OpenCV returned for uint8 input, which its stubs type as any array."""
    return array.view(np.uint8)
