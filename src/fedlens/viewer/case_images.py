"""A case's pixels, wherever they come from, and its judgement where it still waits for one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedlens.errors import UnreadableImageError
from fedlens.imaging.dicom import is_dicom
from fedlens.imaging.formats import read_bytes
from fedlens.predicting import Prediction
from fedlens.viewer.case import Case
from fedlens.viewer.decoding import Decoded
from fedlens.viewer.services import Services


@dataclass(frozen=True, eq=False)
class Shown:
    """One image as the browser draws it.

    Attributes:
        values: uint8 (H, W) grey, uint8 (H, W, 3) RGB, or uint16 (H, W) grey.
        centre: Of the window to begin with, in these values.
        span: Of that window.
        offset: What the file means by value 0, in Hounsfield units for one.
        scale: What it means by one value more; below 0 where it draws high values dark.
    """

    values: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    centre: float = 127.5
    span: float = 255.0
    offset: float = 0.0
    scale: float = 1.0


def eight_bit(services: Services, case: Case) -> npt.NDArray[np.uint8]:
    """The image as the network's preparation starts from it: uint8 (H, W) grey or (H, W, 3) RGB.

    Raises:
        UnreadableImageError: It is gone or cannot be decoded.
    """
    return services.library.image(case).pixels if services.library else decoded(services, case).pixels


def as_shown(services: Services, case: Case) -> Shown:
    """The image for window and level: 16-bit greys where the file has them.

    Raises:
        UnreadableImageError: It is gone or cannot be decoded.
    """
    if not is_dicom(_head(case)):
        return Shown(eight_bit(services, case))
    try:
        found = decoded(services, case)
    except UnreadableImageError:
        # An image of the study may be larger than what is taken from strangers.
        return Shown(eight_bit(services, case))
    if found.window is None:
        return Shown(found.pixels)
    greys = found.window
    return Shown(greys.values, greys.centre, greys.width, greys.offset, greys.scale)


def decoded(services: Services, case: Case) -> Decoded:
    """The case's file, decoded where it can do no harm.

    Raises:
        UnreadableImageError: It is gone or cannot be decoded.
    """
    return services.decoder.decode(read_bytes(case.file), case.title, case.frame)


def judged(services: Services, case: Case) -> Prediction | None:
    """What is said of a case, ahead of its turn; None while the study has no trained network."""
    library = services.library
    if case.prediction is not None or library is None:
        return case.prediction
    try:
        given = library.image(case)
    except UnreadableImageError as error:
        return Prediction(case.title, problem=error.reason)
    return library.judge(case, given.pixels, given.modality)


def _head(case: Case) -> bytes:
    try:
        with case.file.open("rb") as stream:
            return stream.read(132)
    except OSError as error:
        raise UnreadableImageError(case.title, error.strerror or str(error)) from error
