"""What is written back about one image: the source's header, the map on its own pixels, the class."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.uid import UID

import fedlens
from fedlens.errors import DataError, ExplanationError
from fedlens.explain.saliency import SaliencyMap

MANUFACTURER = "FedLens"
SCHEME = "99FEDLENS"
"""Designator of the private coding scheme for what no public one has: a study's own classes (PS3.16 8.2)."""

# Required of every composite object, but often left out by those who write images (PS3.3 C.7, type 2).
_MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "SeriesNumber",
    "InstanceNumber",
)
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "Rows", "Columns")
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")


@dataclass(frozen=True, eq=False)
class Finding:
    """One explained DICOM image.

    Attributes:
        source: Header of the image, as ``source_header`` returns it.
        pixels: uint8 (H, W) or (H, W, 3) RGB, as shown.
        saliency: Where the network looked.
        threshold: Share of the map's maximum from which on a pixel belongs to the region, 0..1.
        model: Name of the network.
        frame: The explained frame, from 0.
        region_uid: Names the region wherever it is spoken of.

    Raises:
        ExplanationError: Threshold out of range, or pixels of another size than the header says.
    """

    source: Dataset = field(repr=False)
    pixels: npt.NDArray[np.uint8] = field(repr=False)
    saliency: SaliencyMap
    threshold: float
    model: str
    frame: int = 0
    region_uid: str = field(default_factory=lambda: f"2.25.{uuid.uuid4().int}")

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ExplanationError(
                f"A threshold of {self.threshold} is out of range.", fix="Choose one above 0 and up to 1."
            )
        if self.pixels.shape[:2] != self.shape:
            raise ExplanationError(
                f"{self.saliency.file} has {self.pixels.shape[:2]} pixels, but its header says {self.shape}."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the source."""
        return int(self.source.Rows), int(self.source.Columns)

    @property
    def frames(self) -> int:
        """Frames of the source."""
        return int(self.source.get("NumberOfFrames") or 1)

    @property
    def multi_frame(self) -> bool:
        """Whether references have to say which frame."""
        return "NumberOfFrames" in self.source and self.frames > 1

    @property
    def probability(self) -> float:
        """Of the explained class, 0..1."""
        return self.saliency.probabilities[self.saliency.target][1]

    def heat(self) -> npt.NDArray[np.float32]:
        """The map at the source's rows and columns: float32 (H, W), 0..1, as the overlay shows it."""
        height, width = self.shape
        resized = cv2.resize(self.saliency.values, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.clip(np.asarray(resized, np.float32), 0, 1)

    def region(self) -> npt.NDArray[np.bool_]:
        """Where the heat reaches the threshold: bool (H, W); nowhere in an empty map."""
        heat = self.heat()
        return np.asarray((heat >= self.threshold * heat.max()) & (heat > 0))

    def parameters(self) -> dict[str, str]:
        """What else determines the map and the region, for the algorithm's description."""
        return {
            "method": self.saliency.method,
            **self.saliency.settings,
            "threshold": f"{self.threshold:g} of maximum",
            "weights": self.saliency.reproduce.get("weights_sha256", "")[:16],
            "architecture": self.saliency.fingerprint[:16],
        }

    @property
    def version(self) -> str:
        """Version of the algorithm: of this program and of the weights."""
        return f"{fedlens.__version__} {self.saliency.reproduce.get('weights_sha256', '')[:12]}".strip()


def source_header(dataset: Dataset, name: str) -> Dataset:
    """The header that results refer to: without pixels, and mended where it lacks what they must repeat.

    Args:
        dataset: As ``dicom.parse`` returns it; not changed.
        name: Of the file, for messages.

    Raises:
        DataError: It lacks an identity of its own (a UID), so that nothing can refer to it.
    """
    missing = [tag for tag in _NEEDED if not dataset.get(tag)]
    if missing:
        raise DataError(f"No result can refer to {name}.", why=f"Its header has no {', '.join(missing)}.")
    header = Dataset()
    for element in dataset:
        if not element.tag.is_private and element.keyword not in _PIXELS:
            header.add(element)
    for keyword in _MAY_BE_EMPTY:
        if keyword not in header:
            setattr(header, keyword, None)
    for keyword in _SPACINGS:
        if keyword in header and not all(float(step) > 0 for step in header[keyword].value or ()):
            delattr(header, keyword)
    header.file_meta = dataset.file_meta
    return header


def new_uid() -> str:
    """A UID that nobody else has (PS3.5 B.2)."""
    return UID(f"2.25.{uuid.uuid4().int}")


def class_code(name: str) -> Any:
    """The code of one of a study's classes, for highdicom; its value is at most 16 characters (PS3.5 SH)."""
    from highdicom.sr import CodedConcept

    value = name if len(name) <= 16 and name.isascii() else uuid.uuid5(uuid.NAMESPACE_OID, name).hex[:16]
    return CodedConcept(value=value, scheme_designator=SCHEME, meaning=name[:64])


def reference(dataset: Dataset, frame: int | None = None) -> Dataset:
    """An item that refers to an object (PS3.3 10.8), and to one of its frames counted from 0 if given."""
    item = Dataset()
    item.ReferencedSOPClassUID = dataset.SOPClassUID
    item.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
    if frame is not None:
        item.ReferencedFrameNumber = frame + 1
    return item


def spacing(header: Dataset) -> tuple[float, float] | None:
    """Distance of rows and of columns in millimetres, where the image is calibrated."""
    value = header.get("PixelSpacing")
    return (float(value[0]), float(value[1])) if value else None


def orientation(header: Dataset) -> list[str] | None:
    """Where rows and columns run to in the patient, as letters (PS3.3 C.7.6.1.1.1); None where not known.

    Of an oblique image only the main direction is named.
    """
    told = header.get("PatientOrientation")
    if told and len(told) == 2:
        return [str(told[0]), str(told[1])]
    cosines = header.get("ImageOrientationPatient")
    if not cosines or len(cosines) != 6:
        return None
    letters = []
    for direction in (cosines[:3], cosines[3:]):
        numbers = [float(number) for number in direction]
        axis = max(range(3), key=lambda axis: abs(numbers[axis]))
        letters.append(("LPH" if numbers[axis] > 0 else "RAF")[axis])
    return letters
