"""Experts' outlines and body fields of a hospital's images, at the size of its maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fedlens.errors import UnreadableImageError
from fedlens.hospital.images import HospitalImages, Rows
from fedlens.imaging.field import FieldMasks, find_field
from fedlens.imaging.formats import read_mask
from fedlens.imaging.outlines import fitted_outline

Masks = npt.NDArray[np.bool_]
Packed = npt.NDArray[np.uint8]

_THREADS = 2


class ImageRegions:
    """Regions of one split's images, found when first asked for and then kept, a bit a place.

    Args:
        images: The hospital's images of one split.

    Attributes:
        images: The same.
        damaged: Ids of images whose outline's file could not be read when it was last asked for.
    """

    def __init__(self, images: HospitalImages) -> None:
        self.images = images
        self.damaged: set[str] = set()
        self._size = images.pixels.shape[1]
        self._outlines: dict[int, Packed] = {}
        self._insides: dict[int, Packed] = {}

    @cached_property
    def outlined(self) -> Masks:
        """Whether each image has an outline, bool (n,); looks for every file, so only when asked for."""
        files = self.images.outlines or (None,) * len(self.images)
        return np.array([file is not None and file.is_file() for file in files], np.bool_)

    def outlines(self, indices: Rows) -> Masks:
        """Outlines at ``indices`` into the selection, bool (k, S, S); empty where an image has none.

        Raises:
            UnreadableImageError: An outline's file is damaged.
        """
        missing = [
            index for index in indices.tolist() if self.outlined[index] and index not in self._outlines
        ]
        self._outlines |= _made(self._outline, missing)
        masks = np.zeros((len(indices), self._size, self._size), np.bool_)
        for place, index in enumerate(indices.tolist()):
            if self.outlined[index]:
                masks[place] = self._unpacked(self._outlines[index])
        return masks

    def readable_outlines(self, indices: Rows) -> Masks | None:
        """Outlines at ``indices``, bool (k, S, S), with an empty one in place of a damaged one.

        None where no image there has any. What is damaged is noted in ``damaged`` and goes no further:
        the file's own error names the file, and at a hospital an error's text travels.
        """
        if not self.outlined[indices].any():
            return None
        self.damaged -= {self.images.records[index].image_id for index in indices[self.outlined[indices]]}
        try:
            return self.outlines(indices)
        except UnreadableImageError:
            return np.concatenate(
                [self._outline_or_none(indices[place : place + 1]) for place in range(len(indices))]
            )

    def insides(self, indices: Rows) -> Masks:
        """Places inside the body, or of free skin, bool (k, S, S)."""
        missing = [index for index in indices.tolist() if index not in self._insides]
        self._insides |= _made(lambda index: np.packbits(self.field(index).field), missing)
        return np.stack([self._unpacked(self._insides[index]) for index in indices.tolist()])

    def field(self, index: int) -> FieldMasks:
        """All regions of one image; found anew at every call."""
        return find_field(self.images.pixels[self.images.rows[index]], self.images.records[index].modality)

    def _outline_or_none(self, index: Rows) -> Masks:
        try:
            return self.outlines(index)
        except UnreadableImageError:
            self.damaged.add(self.images.records[int(index[0])].image_id)
            return np.zeros((1, self._size, self._size), np.bool_)

    def _outline(self, index: int) -> Packed:
        file = self.images.outlines[index]
        assert file is not None
        return np.packbits(fitted_outline(read_mask(file), self._size))

    def _unpacked(self, bits: Packed) -> Masks:
        places = np.unpackbits(bits, count=self._size**2)
        return places.reshape(self._size, self._size).astype(np.bool_)


def _made(make: Callable[[int], Packed], missing: Sequence[int]) -> dict[int, Packed]:
    """One result for each index; the work is done outside Python's lock."""
    if not missing:
        return {}
    with ThreadPoolExecutor(max_workers=_THREADS) as workers:
        return dict(zip(missing, workers.map(make, missing), strict=True))
