"""Is an image of a kind that the network has learnt from at all? Refused in words where it is not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]

MODALITIES = ("xray", "mri", "ct", "dermoscopy", "other")
"""Kinds of images, as manifests name them."""

COLOURED = frozenset({"dermoscopy", "other"})
"""Kinds that are prepared in colour."""

COLOUR_BINS = 256

_WORDS = {
    "xray": "an X-ray film",
    "mri": "a magnetic resonance image",
    "ct": "a computed tomogram",
    "dermoscopy": "a dermoscopic image",
    "other": "an image of another kind",
}
_PLURALS = {
    "xray": "X-ray films",
    "mri": "magnetic resonance images",
    "ct": "computed tomograms",
    "dermoscopy": "dermoscopic images",
    "other": "images of unnamed kinds",
}
_CLEARLY_COLOURED = 24.0
_CLEARLY_GREY = 1.0
_LOWEST = 0.002
_STRIDE = 128


def colour_of(pixels: npt.NDArray[np.uint8]) -> float:
    """How coloured an image is: mean difference of its greatest and least channel, 0..255.

    Args:
        pixels: uint8 (H, W), or (H, W, C) RGB or grey; large ones are looked at place by place.
    """
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return 0.0
    step = max(1, min(pixels.shape[:2]) // _STRIDE)
    seen = pixels[::step, ::step]
    return float((seen.max(axis=2) - seen.min(axis=2)).mean())


def colour_histogram(colours: npt.NDArray[np.float64], modalities: Counts) -> Counts:
    """Histogram of colour by modality, int64 (5, 256); adds up over hospitals.

    Args:
        colours: (N,) as ``colour_of`` gives them.
        modalities: int64 (N,) indices into ``MODALITIES``.
    """
    filled = np.clip(colours.astype(np.int64), 0, COLOUR_BINS - 1)
    flat = np.bincount(modalities * COLOUR_BINS + filled, minlength=len(MODALITIES) * COLOUR_BINS)
    return flat.reshape(len(MODALITIES), COLOUR_BINS).astype(np.int64)


@dataclass(frozen=True)
class KnownModalities:
    """Kinds of images that a network learnt from.

    Attributes:
        images: By modality, training images; none without any.
        least_colour: By modality, what all but two of a thousand training images are as coloured as.
    """

    images: dict[str, int]
    least_colour: dict[str, float]

    @classmethod
    def fit(cls, histogram: Counts) -> KnownModalities:
        """From ``colour_histogram``, summed over hospitals."""
        images = {name: int(row.sum()) for name, row in zip(MODALITIES, histogram, strict=True) if row.any()}
        least = {
            name: float(np.searchsorted(np.cumsum(row), _LOWEST * row.sum(), side="right"))
            for name, row in zip(MODALITIES, histogram, strict=True)
            if row.any()
        }
        return cls(images, least)

    def likely(self, stated: str, colour: float) -> tuple[str, ...]:
        """Kinds that an image may be of; none where the network has not learnt from its kind.

        Args:
            stated: What header, manifest or user say; empty where nobody says anything.
            colour: As ``colour_of``.
        """
        return () if self.refusal(stated, colour) else self._candidates(stated, colour)

    def refusal(self, stated: str, colour: float) -> str:
        """Why the network must not judge the image, in words; empty where it may."""
        candidates = self._candidates(stated, colour)
        if candidates:
            return ""
        kinds = _listed([_PLURALS[name] for name in self.images])
        if stated and stated not in self.images and stated != "other":
            return f"this is {_WORDS[stated]}, and the network learnt from {kinds} only"
        look = "in colour" if colour >= _CLEARLY_COLOURED else "grey"
        return f"the image is {look}, unlike all {kinds} that the network learnt from"

    def _candidates(self, stated: str, colour: float) -> tuple[str, ...]:
        if "other" in self.images and stated not in self.images:
            # Images whose kind nobody knew were learnt from: the features have to tell.
            return tuple(name for name in self.images if not stated or name == "other")
        named = tuple(self.images) if stated in ("", "other") else (stated,)
        return tuple(name for name in named if name in self.images and self._fits(name, colour))

    def _fits(self, name: str, colour: float) -> bool:
        if name == "other":
            return True
        if name in COLOURED:
            return colour >= min(_CLEARLY_GREY, self.least_colour[name]) or colour >= (
                self.least_colour[name] / 2
            )
        return colour < _CLEARLY_COLOURED


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
