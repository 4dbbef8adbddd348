"""A study in one small file: images re-encoded at the training resolution, with their manifest.

For carrying a study to a machine that trains faster and holds no originals. The pack is a ZIP of
``manifest.parquet`` and WebP images; digests in the manifest are those of the packed images.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from fedlens.errors import DataError
from fedlens.files import whole_file
from fedlens.imaging.formats import read_record
from fedlens.imaging.manifest import MANIFEST_NAME, ImageRecord, Manifest, load_manifest
from fedlens.imaging.staging import staged_folder
from fedlens.progress import Progress, silent

_QUALITIES = (90, 80, 70, 60, 50, 40, 30, 20, 10)
_SAMPLE = 400
_MARGIN = 0.97


def pack_study(
    manifest: Manifest, out: Path, *, size: int, megabytes: float = 60.0, progress: Progress = silent
) -> int:
    """Write a pack that stays under ``megabytes`` (10^6 bytes); returns the WebP quality it took.

    Images larger than ``size`` are shrunk to it as preparation would; smaller ones keep their pixels.
    Masks are left behind.

    Raises:
        DataError: Even the lowest quality would be too large.
    """
    quality = _choose_quality(manifest, size, megabytes * 1e6 * _MARGIN)
    records = []
    with whole_file(out) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        with ThreadPoolExecutor() as workers:
            images = workers.map(lambda record: _encode(manifest, record, size, quality), manifest)
            for done, (record, (content, shape)) in enumerate(zip(manifest, images, strict=True)):
                progress("pack", done, len(manifest))
                digest = hashlib.sha256(content).hexdigest()
                name = f"store/{digest[:2]}/{digest}.webp"
                if name not in archive.NameToInfo:
                    archive.writestr(name, content)
                records.append(
                    dataclasses.replace(
                        record, file=name, mask="", sha256=digest, width=shape[1], height=shape[0]
                    )
                )
        archive.writestr(MANIFEST_NAME, manifest.with_records(records).to_bytes())
    progress("pack", len(manifest), len(manifest))
    return quality


def unpack_study(pack: Path, folder: Path) -> Manifest:
    """Make a study folder from a pack; ``folder`` appears whole or not at all.

    Raises:
        DataError: The file is no pack or is damaged.
    """
    try:
        with zipfile.ZipFile(pack) as archive, staged_folder(folder) as part:
            for name in archive.namelist():
                if name != MANIFEST_NAME and not name.startswith("store/"):
                    raise DataError(f"{pack} holds {name}, which no pack of FedLens has.")
                archive.extract(name, part)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"Cannot unpack {pack}: {error}.", fix="Make the pack again.") from error
    return load_manifest(folder)


def _choose_quality(manifest: Manifest, size: int, budget: float) -> int:
    """The best quality at which a sample, scaled up, fits."""
    rows = np.linspace(0, len(manifest) - 1, min(_SAMPLE, len(manifest))).astype(int)
    sample = [_shrunk(manifest, manifest.records[row], size) for row in rows]
    overhead = 400.0 * len(manifest)  # names and directory of the archive, and the manifest's row
    for quality in _QUALITIES:
        total = sum(len(_webp(image, quality)) for image in sample) * len(manifest) / len(sample)
        if total + overhead <= budget:
            return quality
    raise DataError(
        f"{len(manifest)} images at {size} pixels do not fit into {budget / 1e6:.0f} MB.",
        fix="Allow more megabytes, or a smaller size.",
    )


def _encode(
    manifest: Manifest, record: ImageRecord, size: int, quality: int
) -> tuple[bytes, tuple[int, ...]]:
    image = _shrunk(manifest, record, size)
    return _webp(image, quality), image.shape


def _shrunk(manifest: Manifest, record: ImageRecord, size: int) -> npt.NDArray[np.uint8]:
    image = read_record(manifest, record)
    height, width = image.shape[:2]
    if height > size or width > size:
        shape = (min(width, size), min(height, size))
        image = cv2.resize(image, shape, interpolation=cv2.INTER_AREA).view(np.uint8)
    return image


def _webp(image: npt.NDArray[np.uint8], quality: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "webp", quality=quality, method=4)
    return stream.getvalue()
