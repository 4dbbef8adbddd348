"""DICOM: pixels as a radiologist's screen shows them, and the few facts a study may keep.

Patient and institution are kept only as pseudonyms, so that no identifier enters a manifest.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    JPEG2000,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
)

from fedlens.errors import UnreadableImageError
from fedlens.files import whole_file
from fedlens.imaging.greys import Greys, greys_of, stretch, windowed
from fedlens.imaging.pseudonyms import Pseudonyms

_MODALITIES = {"MR": "mri", "CR": "xray", "DX": "xray", "CT": "ct"}
_SEXES = {"M": "male", "F": "female"}
_DAYS = {"Y": 365.25, "M": 30.4375, "W": 7.0, "D": 1.0}
_PIXEL_TAGS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_PILLOW = (JPEGBaseline8Bit, JPEG2000, JPEG2000Lossless)
DAMAGE = (
    InvalidDicomError,
    BytesLengthException,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    IndexError,
    RuntimeError,
    OverflowError,
    struct.error,
)


@dataclass(frozen=True, slots=True)
class DicomFacts:
    """What a DICOM header says about an image; empty or None where it does not.

    Attributes:
        patient: Pseudonym of the patient id, or of the study where there is no patient id.
        modality: ``mri``, ``xray``, ``ct`` or ``other``.
        site: Pseudonym of the institution's name.
        age: Years.
        sex: ``male``, ``female`` or empty.
    """

    patient: str
    modality: str
    site: str
    age: float | None
    sex: str


def is_dicom(data: bytes) -> bool:
    """Whether a file starts like DICOM, with the usual preamble or with a bare data set."""
    bare = data[:2] in (b"\x08\x00", b"\x02\x00") and data[3:4] == b"\x00"
    return data[128:132] == b"DICM" or bare


def has_preamble(path: Path) -> bool:
    """Whether a file starts with DICOM's usual preamble, whatever it is called.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def save(path: Path, dataset: Dataset) -> Path:
    """Write a data set as a file, whole or not at all; returns ``path``.

    Raises:
        OSError: It cannot be written.
    """
    with whole_file(path) as part:
        dataset.save_as(part, enforce_file_format=True)
    return path


def parse(data: bytes, name: str) -> Dataset:
    """Parse a file's bytes; the pixels stay encoded.

    Raises:
        UnreadableImageError: Not DICOM, damaged, or without pixel data.
    """
    try:
        dataset = dcmread(io.BytesIO(data), force=True)
        if not any(tag in dataset for tag in _PIXEL_TAGS):
            kind = getattr(dataset.get("SOPClassUID"), "name", "")
            raise UnreadableImageError(name, f"DICOM without pixel data{f' ({kind})' if kind else ''}")
        _name_encoding(dataset)
    except DAMAGE as error:
        raise UnreadableImageError(name, f"damaged DICOM: {_first_line(error)}") from error
    return dataset


def frame_count(dataset: Dataset) -> int:
    """Frames in the file; 1 for ordinary images."""
    frames = _text(dataset, "NumberOfFrames")
    return max(1, int(frames)) if frames.isdecimal() else 1


def pixel_count(dataset: Dataset, name: str) -> int:
    """Pixels of all frames together, as the header says; nothing is decoded.

    Raises:
        UnreadableImageError: The header does not say it.
    """
    try:
        return int(dataset.Rows) * int(dataset.Columns) * frame_count(dataset)
    except DAMAGE as error:
        raise UnreadableImageError(name, f"damaged DICOM: {_first_line(error)}") from error


def pixels(dataset: Dataset, frame: int, name: str) -> npt.NDArray[np.uint8]:
    """Decode one frame for viewing (DICOM PS3.3 C.11: modality LUT, VOI LUT, presentation).

    Without a window the values are stretched from minimum to maximum, padding left out.

    Returns:
        uint8, (H, W) grey with bone and fat bright, or (H, W, 3) RGB.

    Raises:
        UnreadableImageError: Truncated, damaged, or an encoding that no decoder here knows.
    """
    return _viewed(dataset, frame, name)[0]


def pixels_and_greys(dataset: Dataset, frame: int, name: str) -> tuple[npt.NDArray[np.uint8], Greys | None]:
    """Decode one frame as :func:`pixels`, and keep the greys that its window leaves out.

    Returns:
        What :func:`pixels` gives, and the greys; None for an image in colour.

    Raises:
        UnreadableImageError: As :func:`pixels`.
    """
    shown, values = _viewed(dataset, frame, name)
    if values is None:
        return shown, None
    try:
        return shown, greys_of(values, dataset)
    except DAMAGE as error:
        raise UnreadableImageError(name, f"damaged DICOM: {_first_line(error)}") from error


def facts(dataset: Dataset, pseudonyms: Pseudonyms) -> DicomFacts:
    """What the header says about patient, machine and place, identifiers replaced by pseudonyms."""
    patient, site = patient_key(dataset), _text(dataset, "InstitutionName")
    return DicomFacts(
        patient=pseudonyms.patient(patient) if patient else "",
        modality=modality(dataset),
        site=pseudonyms.patient(f"site {site}") if site else "",
        age=_age(_text(dataset, "PatientAge")),
        sex=_SEXES.get(_text(dataset, "PatientSex"), ""),
    )


def modality(dataset: Dataset) -> str:
    """``mri``, ``xray``, ``ct`` or ``other``."""
    return _MODALITIES.get(_text(dataset, "Modality"), "other")


def patient_key(dataset: Dataset) -> str:
    """Which patient, for making a pseudonym of it: the id, or the study where there is none; may be empty."""
    patient, study = _text(dataset, "PatientID"), _text(dataset, "StudyInstanceUID")
    return f"patient {patient}" if patient else f"study {study}" if study else ""


def decoder(dataset: Dataset) -> str:
    """Which decoder reads the pixels: ``pillow``, ``gdcm``, or empty for pydicom itself.

    GDCM ends the whole process on some damaged files, so it is left what no other decoder knows.
    """
    encoding = dataset.file_meta.TransferSyntaxUID
    if encoding in _PILLOW:
        return "pillow"
    known = encoding.is_compressed and "gdcm" in get_decoder(encoding).available_plugins
    return "gdcm" if known else ""


def _viewed(
    dataset: Dataset, frame: int, name: str
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.generic] | None]:
    """A frame for viewing, and its stored values (H, W) where it is grey."""
    try:
        values = pixel_array(dataset, index=frame, decoding_plugin=decoder(dataset))
        colours = str(dataset.PhotometricInterpretation)
        if colours == "PALETTE COLOR":
            return _wide_to_eight(apply_color_lut(values, dataset)), None
        if values.ndim == 3:
            return _wide_to_eight(values), None
        shown = windowed(values, dataset)
    except DAMAGE as error:
        raise UnreadableImageError(name, f"damaged DICOM: {_first_line(error)}") from error
    return (255 - shown if colours == "MONOCHROME1" else shown), values


def _wide_to_eight(values: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return np.array(values, np.uint8)
    top = max(255, 2 ** int(values.max()).bit_length() - 1)
    return stretch(values.astype(np.float64), 0, top)


def _name_encoding(dataset: Dataset) -> None:
    """Bare data sets leave out the transfer syntax that the pixel decoders ask for."""
    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = FileMetaDataset()
    if "TransferSyntaxUID" in dataset.file_meta:
        return
    implicit, little = dataset.original_encoding
    explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit


def _text(dataset: Dataset, tag: str) -> str:
    """A header value, or empty where it is missing or garbled: the pixels may still be good."""
    try:
        return str(dataset.get(tag) or "").strip()
    except DAMAGE:
        return ""


def _age(text: str) -> float | None:
    number, unit = text[:-1], text[-1:]
    if not number.isdecimal() or unit not in _DAYS:
        return None
    return float(number) if unit == "Y" else round(int(number) * _DAYS[unit] / _DAYS["Y"], 3)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # The first line only says that all decoders failed; the ones below say why.
    if len(lines) > 1 and lines[0].startswith("Unable to decode"):
        return lines[1].partition(":")[2].strip().rstrip(".")
    return lines[0].rstrip(".")
