"""A case's image, read where that can do no harm."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedlens.errors import UnreadableImageError
from fedlens.image_loading import GivenImage, KnownImages, load_image
from fedlens.imaging.dicom import is_dicom
from fedlens.imaging.formats import read_bytes
from fedlens.viewer.case import Case


class Pixels(Protocol):
    """A decoded image."""

    @property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """uint8 (H, W) grey or (H, W, 3) RGB."""
        ...

    @property
    def modality(self) -> str:
        """From a DICOM header; empty where there is none."""
        ...


class SafeDecoder(Protocol):
    """Decodes bytes that nobody vouches for where they can do no harm."""

    def decode(self, data: bytes, name: str, frame: int = 0) -> Pixels:
        """Decode one frame.

        Raises:
            UnreadableImageError: It cannot be.
        """
        ...


class CaseLoader:
    """Reads cases' images; any thread may call it.

    Args:
        known: Images of the study, looked up by content.
        decoder: Decodes uploads, and DICOM files of folders, some of which end the process that decodes them;
            without one, uploads are not decoded at all.
    """

    def __init__(self, known: KnownImages, decoder: SafeDecoder | None) -> None:
        self._known = known
        self._decoder = decoder

    def load(self, case: Case) -> GivenImage:
        """The image in 8 bits, with its outline where the study has one.

        Raises:
            UnreadableImageError: It is gone or cannot be decoded.
        """
        if case.origin in ("study", "reference"):
            return load_image(case.file, self._known, frame=case.frame)
        data = read_bytes(case.file)
        if case.origin == "folder" and not (self._decoder and is_dicom(data)):
            return load_image(case.file, self._known, frame=case.frame)
        if self._decoder is None:
            raise UnreadableImageError(case.title, "nothing here decodes uploads")
        decoded = self._decoder.decode(data, case.title, case.frame)
        return self.given(case, decoded.pixels, decoded.modality)

    def given(self, case: Case, pixels: npt.NDArray[np.uint8], modality: str) -> GivenImage:
        """A case's image that was decoded elsewhere.

        Args:
            case: The case.
            pixels: uint8 (H, W) grey or (H, W, 3) RGB.
            modality: As a header says; the study knows better of its own images.
        """
        record = self._known.record(case.sha256)
        return GivenImage(case.file, case.sha256, pixels, record.modality if record else modality)
