"""MedMNIST arrays: ``train_images``, ``train_labels`` and so on in one .npz file.

Yang et al. 2023, Scientific Data 10:41. The larger ones hold tens of gigabytes, so images are
streamed out of the archive one at a time.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from fedlens.errors import LayoutError
from fedlens.imaging.layouts.listing import FileLayout, FoundImage, Listing

_SPLITS = ("train", "val", "test")
_DAMAGE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile)


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]


def find_file(path: Path) -> Listing:
    """Every image of the file, its integer label as text, each its own group.

    Raises:
        LayoutError: Damaged, not MedMNIST, multi-label, or three-dimensional.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            splits = [split for split in _SPLITS if f"{split}_images.npy" in names]
            if not splits:
                raise _refusal(path, f"it holds {', '.join(sorted(names)) or 'nothing'}")
            headers = {split: _checked_header(path, archive, split) for split in splits}
            labels = {split: _labels(path, split, headers[split].shape[0]) for split in splits}
    except _DAMAGE as error:
        raise LayoutError(f"Cannot read {path}: {error}.", fix="Download it again.") from error
    return Listing(
        layout=FILE_LAYOUT.name,
        images=_images(path, headers, labels),
        total=sum(header.shape[0] for header in headers.values()),
        source=path.stem,
        modality="other",
        notes=(
            f"the source's own splits ({', '.join(splits)}) are not used",
            "no patients are named: every image stands for itself",
        ),
    )


def _checked_header(path: Path, archive: zipfile.ZipFile, split: str) -> _Header:
    with archive.open(f"{split}_images.npy") as stream:
        header = _read_header(path, stream)
    shape = header.shape
    if header.dtype != np.uint8:
        raise _refusal(path, f"{split}_images holds {header.dtype}, not uint8")
    if len(shape) != 3 and not (len(shape) == 4 and shape[3] == 3):
        raise _refusal(path, f"{split}_images has shape {shape}, not (N, H, W) or (N, H, W, 3)")
    return header


def _read_header(path: Path, stream: IO[bytes]) -> _Header:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_column, dtype = read(stream)
    if by_column:
        raise _refusal(path, "its arrays are stored by column")
    return _Header(shape, dtype)


def _labels(path: Path, split: str, count: int) -> npt.NDArray[np.int64]:
    with np.load(path, allow_pickle=False) as archive:
        labels = archive[f"{split}_labels"]
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise LayoutError(
            f"{path} has {labels.shape[1]} labels for each image.",
            why="FedLens decides between classes of which each image has exactly one.",
            fix="Choose a data set with one label an image, e.g. pneumoniamnist.",
        )
    if labels.size != count or labels.dtype.kind not in "iu":
        raise _refusal(path, f"{split}_labels has {labels.size} {labels.dtype} values for {count} images")
    return np.asarray(labels.reshape(-1), np.int64)


def _images(
    path: Path, headers: dict[str, _Header], labels: dict[str, npt.NDArray[np.int64]]
) -> Iterator[FoundImage]:
    with zipfile.ZipFile(path) as archive:
        for split, header in headers.items():
            shape = header.shape[1:]
            with archive.open(f"{split}_images.npy") as stream:
                _read_header(path, stream)
                for number, label in enumerate(labels[split]):
                    data = _exactly(path, stream, int(np.prod(shape)))
                    pixels = np.frombuffer(data, np.uint8).reshape(shape)
                    yield FoundImage(path, f"{split}_images#{number}", str(label), pixels=pixels)


def _exactly(path: Path, stream: IO[bytes], size: int) -> bytes:
    try:
        data = stream.read(size)
    except _DAMAGE as error:
        raise LayoutError(f"Cannot read {path}: {error}.", fix="Download it again.") from error
    if len(data) != size:
        raise LayoutError(f"{path} is truncated.", fix="Download it again.")
    return data


def _refusal(path: Path, what: str) -> LayoutError:
    return LayoutError(
        f"{path} is no MedMNIST file that can be imported: {what}.",
        why=f"Looked for {FILE_LAYOUT.looks_like}.",
        fix="Use one of the 2-D, single-label MedMNIST files.",
    )


FILE_LAYOUT = FileLayout(
    "MedMNIST", "an .npz with train_images, train_labels and so on", frozenset({".npz"}), find_file
)
