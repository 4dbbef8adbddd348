"""Prepared pixels of a whole study, kept on disk and shared between runs.

One ``<key>.npy`` holds all images in manifest order. The key covers every file's content and
everything that shapes its pixels, so a cache is never stale; it is complete once it has that name.
While it is made it is called ``<key>.partial``, ends with the number of finished images and is
locked by its writer. The system drops a dead writer's lock, so whoever comes next goes on from there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import math
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedlens.errors import DataError
from fedlens.files import sync_folder
from fedlens.imaging.formats import read_record
from fedlens.imaging.manifest import ImageRecord, Manifest
from fedlens.imaging.preprocess import digest, preprocess
from fedlens.progress import Progress, silent
from fedlens.study import PreprocessSettings

Pixels = npt.NDArray[np.uint8]

_BLOCK_IMAGES = 256
_BLOCK_BYTES = 64 * 2**20
_COUNT_BYTES = 8
_ABANDONED_SECONDS = 24 * 3600


def build_cache(
    manifest: Manifest, settings: PreprocessSettings, folder: Path, progress: Progress = silent
) -> Pixels:
    """Prepared pixels of every image, made if they are not in ``folder`` yet.

    Writers of the same cache may run at once: one works, the others wait and then read. An
    interrupted one is resumed at the last finished block of images.

    Args:
        manifest: Images, at least one.
        settings: How to prepare them.
        folder: Where caches are kept; made if missing.
        progress: Called after each block with step ``prepare``.

    Returns:
        uint8 (N, size, size, channels), rows in manifest order; a read-only memory map.

    Raises:
        UnreadableImageError: An image cannot be decoded; names the file.
        DataError: No images, or no room in ``folder``.
    """
    if not len(manifest):
        raise DataError(f"The manifest of {manifest.folder} has no images to prepare.")
    shape = (len(manifest), settings.size, settings.size, settings.channels)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{cache_key(manifest, settings)[:32]}.npy"
    partial = target.with_suffix(".partial")
    if not target.exists():
        _remove_abandoned(folder, keep=partial)
        with _locked(partial, target) as stream:
            if target.exists():
                partial.unlink(missing_ok=True)
            else:
                _fill(stream, manifest, settings, shape, progress)
                partial.replace(target)
                sync_folder(folder)
    return _open(target, shape)


def cache_key(manifest: Manifest, settings: PreprocessSettings) -> str:
    """SHA-256 (hexadecimal) over the settings and, in order, each file's content, frame and modality."""
    key = hashlib.sha256(digest(settings).encode())
    for record in manifest:
        frame = record.file.rpartition("#")[2]
        key.update(f"\n{record.sha256} {frame if frame.isdecimal() else 0} {record.modality}".encode())
    return key.hexdigest()


def _open(path: Path, shape: tuple[int, ...]) -> Pixels:
    try:
        pixels: Pixels = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}.", fix="Delete it; it is made again.") from error
    if pixels.shape != shape or pixels.dtype != np.uint8:
        raise DataError(f"{path} has shape {pixels.shape} instead of {shape}.", fix="Delete it.")
    return pixels


@contextlib.contextmanager
def _locked(partial: Path, target: Path) -> Iterator[FileIO]:
    """Open and lock the partial file; waits while another writer is at work."""
    while True:
        with FileIO(partial, "r+", opener=_create) as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            # While this one waited, the other writer may have renamed the file or removed it.
            if target.exists() or _is_same(stream, partial):
                yield stream
                return


def _create(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o644)


def _is_same(stream: FileIO, path: Path) -> bool:
    return path.exists() and os.path.samestat(os.fstat(stream.fileno()), path.stat())


def _fill(
    stream: FileIO,
    manifest: Manifest,
    settings: PreprocessSettings,
    shape: tuple[int, ...],
    progress: Progress,
) -> None:
    """Write all rows that are not there yet, in blocks, then drop the trailing count."""
    header = _header(shape)
    row_bytes = math.prod(shape[1:])
    end = len(header) + shape[0] * row_bytes
    done = _finished(stream, end)
    if not done:
        stream.truncate(0)
        _write(stream, 0, header)
        _write(stream, end, bytes(_COUNT_BYTES))
    size = max(1, min(_BLOCK_IMAGES, _BLOCK_BYTES // row_bytes))

    def prepare(record: ImageRecord) -> bytes:
        return preprocess(read_record(manifest, record), settings, record.modality).tobytes()

    progress("prepare", done, shape[0])
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        while done < shape[0]:
            block = list(pool.map(prepare, manifest.records[done : done + size]))
            _write(stream, len(header) + done * row_bytes, b"".join(block))
            done += len(block)
            # Only once the pixels are on disk: the count vouches for them.
            _write(stream, end, done.to_bytes(_COUNT_BYTES, "little"))
            progress("prepare", done, shape[0])
    stream.truncate(end)
    os.fsync(stream.fileno())


def _finished(stream: FileIO, end: int) -> int:
    """Images that an interrupted writer finished."""
    if os.fstat(stream.fileno()).st_size != end + _COUNT_BYTES:
        return 0
    stream.seek(end)
    return int.from_bytes(stream.read(_COUNT_BYTES), "little")


def _write(stream: FileIO, offset: int, content: bytes) -> None:
    rest = memoryview(content)
    try:
        stream.seek(offset)
        while rest:
            rest = rest[stream.write(rest) :]
        os.fsync(stream.fileno())
    except OSError as error:
        raise DataError(
            f"Cannot write prepared images to {stream.name}: {error.strerror}.",
            fix="Make room there, then run again: finished images are kept.",
        ) from error


def _header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def _remove_abandoned(folder: Path, keep: Path) -> None:
    """Delete other studies' partial files that nobody has written to for a day."""
    for path in folder.glob("*.partial"):
        with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path != keep and time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                path.unlink()
