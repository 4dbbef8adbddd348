"""Decoding: any image file to 8-bit pixels, or one clear reason why not.

Pillow decodes ordinary formats because it refuses truncated files, where other decoders fill the
missing part with grey and say nothing.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from fedlens.errors import UnreadableImageError
from fedlens.imaging import dicom
from fedlens.imaging.greys import stretch
from fedlens.imaging.manifest import ImageRecord, Manifest

Pixels = npt.NDArray[np.uint8]

DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})

_FORMAT_SUFFIXES = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "MPO": {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"},
    "PNG": {".png"},
    "BMP": {".bmp", ".dib"},
    "DIB": {".bmp", ".dib"},
    "GIF": {".gif"},
    "TIFF": {".tif", ".tiff"},
    "WEBP": {".webp"},
    "AVIF": {".avif"},
    "JPEG2000": {".jp2", ".j2k", ".jpx"},
    "PPM": {".ppm", ".pgm", ".pnm"},
}
IMAGE_SUFFIXES: frozenset[str] = frozenset().union(*_FORMAT_SUFFIXES.values())
# Loaded here once: Pillow's loading on demand is not safe from several threads. Only these formats
# are opened, because others (EPS) would start programs on a stranger's file.
Image.init()
_FORMATS = tuple(form for form in _FORMAT_SUFFIXES if form in Image.OPEN)
_ORIENTATION = 0x0112
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """Pixels of one image and what had to be done to get them.

    Attributes:
        pixels: uint8, (H, W) grey or (H, W, 3) RGB, upright.
        notes: One short phrase for each thing out of the ordinary; empty for most images.
    """

    pixels: Pixels
    notes: tuple[str, ...] = ()


def read_image(path: Path, frame: int = 0) -> Pixels:
    """Read one image upright and in 8 bits.

    16-bit values are divided by the range of the bits in use; palette, CMYK and coloured images
    come out as RGB, transparent parts black; EXIF rotation is applied. DICOM: rescale and window
    applied, ``MONOCHROME1`` inverted.

    Args:
        path: An image file of any format that Pillow or DICOM knows, whatever its name says.
        frame: Frame of a multi-frame DICOM file; 0 for all others.

    Returns:
        uint8, (H, W) grey or (H, W, 3) RGB.

    Raises:
        UnreadableImageError: Missing, empty, truncated, damaged or not an image.
    """
    return decode(read_bytes(path), str(path), frame).pixels


def read_mask(path: Path) -> npt.NDArray[np.bool_]:
    """Read an outline drawn by an expert; True inside.

    A mask of few distinct values (0/1, 0/255, part labels) is True wherever it is not 0; one with
    many greys (JPEG, anti-aliased edges) where it is above half its maximum.

    Returns:
        bool, (H, W), upright.

    Raises:
        UnreadableImageError: As for ``read_image``.
    """
    return decode_mask(read_bytes(path), str(path))


def read_record(manifest: Manifest, record: ImageRecord) -> Pixels:
    """Read the pixels of one row of a manifest: uint8, (H, W) or (H, W, 3)."""
    return read_image(*locate(manifest, record))


def locate(manifest: Manifest, record: ImageRecord) -> tuple[Path, int]:
    """The file and frame that a row of a manifest stands for.

    Frame ``n`` of a multi-frame DICOM file is kept as ``path#n``.
    """
    path = manifest.path(record)
    stem, mark, frame = record.file.rpartition("#")
    if mark and frame.isdecimal() and not path.exists():
        return manifest.folder / stem, int(frame)
    return path, 0


def read_bytes(path: Path) -> bytes:
    """The file's bytes.

    Raises:
        UnreadableImageError: Missing, forbidden, or a failing disk.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImageError(str(path), error.strerror or str(error)) from error


def decode(data: bytes, name: str, frame: int = 0) -> DecodedImage:
    """Decode an image file's bytes; ``name`` is its path, for messages and for its extension.

    Raises:
        UnreadableImageError: Empty, truncated, damaged or not an image.
    """
    if dicom.is_dicom(data):
        return DecodedImage(dicom.pixels(dicom.parse(data, name), frame, name))
    image, notes = _open(data, name)
    try:
        turned = ImageOps.exif_transpose(image) if image.getexif().get(_ORIENTATION, 1) != 1 else image
        values = _flatten(turned, notes)
    except _DAMAGE as error:
        raise UnreadableImageError(name, _reason(error)) from error
    if turned is not image:
        notes.append("turned upright by its EXIF orientation")
    if values.dtype != np.uint8:
        values = to_eight_bits(values)
        notes.append(f"scaled from {image.mode} values to 8 bits")
    return DecodedImage(np.ascontiguousarray(values, dtype=np.uint8), tuple(notes))


def pixel_count(data: bytes, name: str) -> int:
    """Pixels that :func:`decode` would make of an ordinary image, as its header says; nothing is decoded.

    Raises:
        UnreadableImageError: Empty, or its header is damaged or of no known format.
    """
    width, height = _head(data, name).size
    return width * height


def decode_mask(data: bytes, name: str) -> npt.NDArray[np.bool_]:
    """Decode a mask file's bytes; see ``read_mask``."""
    image, _ = _open(data, name)
    try:
        upright = ImageOps.exif_transpose(image) if image.getexif().get(_ORIENTATION, 1) != 1 else image
        # Palette masks number their parts; the colours are only for looking at.
        values = np.asarray(upright if upright.mode in ("P", "1") else _without_alpha(upright))
    except _DAMAGE as error:
        raise UnreadableImageError(name, _reason(error)) from error
    flat = values.max(axis=2) if values.ndim == 3 else values
    if flat.dtype == np.bool_:
        return np.array(flat)
    few = np.unique(flat[:: max(1, flat.shape[0] // 64)]).size <= 8
    threshold = 0 if few else flat.max() / 2
    return np.asarray(flat > threshold)


def to_eight_bits(values: npt.NDArray[np.generic]) -> Pixels:
    """Scale integers or floats of any range to uint8.

    Whole numbers up to 16 bits are divided by the range of the bits in use (12-bit data in a
    16-bit file keep their contrast); anything else is stretched from its minimum to its maximum.
    """
    numbers = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(numbers.min()), float(numbers.max())
    if values.dtype.kind in "iu" and low >= 0 and high < 65536:
        low, high = 0.0, float(2 ** max(8, int(high).bit_length()) - 1)
    return stretch(numbers, low, high)


def _head(data: bytes, name: str) -> ImageFile.ImageFile:
    """A Pillow image whose pixels are still encoded."""
    if not data:
        raise UnreadableImageError(name, "the file is empty")
    try:
        return Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise UnreadableImageError(name, _unknown(data)) from error
    except _DAMAGE as error:
        raise UnreadableImageError(name, _reason(error)) from error


def _open(data: bytes, name: str) -> tuple[Image.Image, list[str]]:
    """A fully decoded Pillow image and the notes that its container earns."""
    image = _head(data, name)
    try:
        notes = _container_notes(image, name)
        if image.format == "PNG":
            # Pillow checks the checksums of PNG pixel data only when asked to.
            Image.open(io.BytesIO(data), formats=("PNG",)).verify()
        image.load()
    except _DAMAGE as error:
        raise UnreadableImageError(name, _reason(error)) from error
    if image.format in ("JPEG", "MPO") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        raise UnreadableImageError(name, "truncated: the JPEG has no end marker")
    return image, notes


def _container_notes(image: ImageFile.ImageFile, name: str) -> list[str]:
    """What the still undecoded file shows about itself."""
    notes = []
    form = str(image.format)
    suffix = PurePath(name).suffix.lower()
    if form in _FORMAT_SUFFIXES and suffix not in _FORMAT_SUFFIXES[form]:
        notes.append(f"is a {form} despite its name")
    if image.mode in ("RGB", "RGBA") and any(";16" in str(tile[3]) for tile in image.tile):
        notes.append("scaled from 16 to 8 bits")
    if form != "MPO" and getattr(image, "n_frames", 1) > 1:
        notes.append("has several pages, of which the first is used")
    return notes


def _flatten(image: Image.Image, notes: list[str]) -> npt.NDArray[np.generic]:
    """Values as (H, W) or (H, W, 3), whatever the mode; adds what was done to ``notes``."""
    mode = image.mode
    if mode in ("L", "RGB") and "transparency" not in image.info:
        return np.asarray(image)
    if mode in ("F", "I") or mode.startswith("I;16"):
        return np.asarray(image)
    if mode == "1":
        return np.asarray(image.convert("L"))
    if mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        notes.append("had transparency, laid on black")
        return np.asarray(_on_black(image))
    named = {"P": "a colour palette", "CMYK": "CMYK ink colours"}
    notes.append(f"converted to RGB from {named.get(mode, mode + ' colours')}")
    return np.asarray(image.convert("RGB"))


def _on_black(image: Image.Image) -> Image.Image:
    grey = image.mode in ("L", "LA", "La")
    layered = image.convert("RGBA")
    ground = Image.new("RGBA", layered.size, (0, 0, 0, 255))
    return Image.alpha_composite(ground, layered).convert("L" if grey else "RGB")


def _without_alpha(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "RGBa", "CMYK", "PA"):
        return image.convert("RGB")
    return image.convert("L") if image.mode in ("LA", "La") else image


def _reason(error: BaseException) -> str:
    text = str(error).strip().rstrip(".")
    return "truncated" if "truncated" in text.lower() else f"damaged: {text or type(error).__name__}"


def _unknown(data: bytes) -> str:
    heads = {b"\xff\xd8": "JPEG", b"\x89PNG": "PNG", b"BM": "BMP", b"GIF8": "GIF", b"II*\0": "TIFF"}
    for head, name in heads.items():
        if data.startswith(head):
            return f"damaged: starts like a {name}, and its header cannot be read"
    return "not an image of a known format"
