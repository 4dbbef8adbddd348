"""Images that somebody gives on the command line: read, recognised by content, and their kind found out."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedlens.errors import ManifestError, UnreadableImageError
from fedlens.imaging import dicom
from fedlens.imaging.formats import DICOM_SUFFIXES, IMAGE_SUFFIXES, decode, read_bytes
from fedlens.imaging.manifest import ImageRecord, Manifest, load_manifest
from fedlens.imaging.outlines import read_outline
from fedlens.run_folder import kept_study


@dataclass(frozen=True)
class GivenImage:
    """One image as it was given, with what is known of it.

    Attributes:
        path: The file.
        sha256: Digest of its bytes.
        pixels: uint8 (H, W) grey or (H, W, 3) RGB.
        modality: From the study's manifest, then from a DICOM header; empty where neither says.
        label: Class in the study; empty where the study does not hold the image.
        mask: Expert's outline, bool (H, W).
    """

    path: Path
    sha256: str
    pixels: npt.NDArray[np.uint8]
    modality: str
    label: str = ""
    mask: npt.NDArray[np.bool_] | None = None


class KnownImages:
    """Images of the study that a checkpoint comes from, by content.

    The images themselves may be elsewhere by now; then nothing is known.

    Args:
        checkpoint: Its folder.
    """

    def __init__(self, checkpoint: Path) -> None:
        study = kept_study(checkpoint)
        self._relabel = study.data.relabel if study else {}
        self._manifest = Manifest(Path(), ())
        if study is not None:
            # A checkpoint is enough to go on: the manifest may have stayed elsewhere.
            with contextlib.suppress(ManifestError):
                self._manifest = load_manifest(study.data.folder)
        self._records = {record.sha256: record for record in self._manifest}

    def record(self, sha256: str) -> ImageRecord | None:
        """The row of the manifest with this content."""
        return self._records.get(sha256)

    def label(self, record: ImageRecord) -> str:
        """Its class as the study names it."""
        return self._relabel.get(record.label, record.label)

    def mask(self, record: ImageRecord, size: tuple[int, ...]) -> npt.NDArray[np.bool_] | None:
        """Its outline at the image's size."""
        return read_outline(self._manifest, record, size)


def load_image(path: Path, known: KnownImages | None = None, *, frame: int = 0) -> GivenImage:
    """Read one image.

    Args:
        path: Any readable image, DICOM included.
        known: The study's images; nothing is looked up where None.
        frame: Of a multi-frame DICOM file.

    Raises:
        UnreadableImageError: It cannot be read or decoded.
    """
    data = read_bytes(path)
    sha256 = hashlib.sha256(data).hexdigest()
    record = known.record(sha256) if known else None
    pixels = decode(data, str(path), frame).pixels
    modality = record.modality if record else ""
    if not modality and dicom.is_dicom(data):
        modality = dicom.modality(dicom.parse(data, str(path)))
    return GivenImage(
        path=path,
        sha256=sha256,
        pixels=pixels,
        modality=modality,
        label=known.label(record) if known and record else "",
        mask=known.mask(record, pixels.shape[:2]) if known and record else None,
    )


def distinct_names(images: Sequence[Path]) -> list[str]:
    """A file name for each image; a later one of the same stem gets a number."""
    names: list[str] = []
    taken: set[str] = set()
    for path in images:
        name, number = path.stem, 2
        while name in taken:
            name, number = f"{path.stem}-{number}", number + 1
        taken.add(name)
        names.append(name)
    return names


def shown_name(image: tuple[Path, int | None]) -> str:
    """What rows and tables call an image of :func:`find_images`: its path, with ``#n`` for frame n."""
    path, frame = image
    return str(path) if frame is None else f"{path}#{frame}"


def find_images(paths: Sequence[Path]) -> list[tuple[Path, int | None]]:
    """Images to read, with a frame number where a DICOM file has several; folders are searched in order.

    Args:
        paths: Files are taken as they are, even those that are missing or no images; of a folder, all that
            is called or starts like an image, at any depth, hidden files left out.
    """
    found: list[tuple[Path, int | None]] = []
    for path in paths:
        files = sorted(filter(_looks_like_image, path.rglob("*"))) if path.is_dir() else [path]
        for file in files:
            frames = _frames(file)
            found += [(file, number) for number in range(frames)] if frames > 1 else [(file, None)]
    return found


def _looks_like_image(path: Path) -> bool:
    if path.name.startswith(".") or not path.is_file():
        return False
    if path.suffix.lower() in IMAGE_SUFFIXES | DICOM_SUFFIXES:
        return True
    # DICOM files often have no ending, or numbers for one.
    with contextlib.suppress(OSError):
        return dicom.has_preamble(path)
    return False


def _frames(path: Path) -> int:
    """Frames of a DICOM file; 1 for all others, and for those whose reading will say what is wrong."""
    try:
        with path.open("rb") as stream:
            if not dicom.is_dicom(stream.read(132)):
                return 1
        return dicom.frame_count(dicom.parse(read_bytes(path), str(path)))
    except (OSError, UnreadableImageError):
        return 1
