"""One hospital's images, ready for the network: prepared pixels, labels, and a stream of passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedlens.errors import SplitError
from fedlens.imaging.manifest import ImageRecord, Manifest

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class HospitalImages:
    """Images of one hospital and one split.

    Attributes:
        pixels: uint8 (images of the study, size, size, channels), memory-mapped, shared.
        rows: Rows of ``pixels`` that belong here, (n,).
        labels: Class index of each row, (n,).
        free_rotation: Whether each row's image has no upright (dermoscopy), (n,).
        records: Manifest rows, in the same order.
        outlines: File of each image's outline by an expert, None where it has none; empty where no image
            has one.
    """

    pixels: npt.NDArray[np.uint8]
    rows: Rows
    labels: Rows
    free_rotation: npt.NDArray[np.bool_]
    records: tuple[ImageRecord, ...]
    outlines: tuple[Path | None, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: Rows) -> npt.NDArray[np.uint8]:
        """Copies of the pixels at ``indices`` into this selection, uint8 (k, size, size, channels)."""
        return np.stack([self.pixels[row] for row in self.rows[indices]])


def select_images(
    manifest: Manifest,
    pixels: npt.NDArray[np.uint8],
    classes: Sequence[str],
    *,
    split: str,
    hospital: str = "",
) -> HospitalImages:
    """The images of one split, of one hospital or (empty name) of all of them together.

    Raises:
        SplitError: A label is not among ``classes``.
    """
    index = {label: number for number, label in enumerate(classes)}
    chosen = [
        (row, record)
        for row, record in enumerate(manifest)
        if record.split == split and record.hospital and (not hospital or record.hospital == hospital)
    ]
    unknown = sorted({record.label for _, record in chosen} - set(index))
    if unknown:
        raise SplitError(
            f"Labels {unknown} are not among the study's classes {list(classes)}.",
            fix="Add them to data.classes, or map them with data.relabel.",
        )
    return HospitalImages(
        pixels=pixels,
        rows=np.array([row for row, _ in chosen], np.int64),
        labels=np.array([index[record.label] for _, record in chosen], np.int64),
        free_rotation=np.array([record.modality == "dermoscopy" for _, record in chosen], np.bool_),
        records=tuple(record for _, record in chosen),
        outlines=tuple(manifest.mask_path(record) for _, record in chosen),
    )


def stream_order(labels: Rows, *, seed: int, number: int, balanced: bool) -> Rows:
    """Order of pass ``number``: a permutation, or ``n`` draws that visit classes evenly.

    The order depends on nothing but its arguments, so a resumed run sees the same images.
    """
    rng = np.random.default_rng((seed, number))
    if not balanced:
        return rng.permutation(len(labels))
    counts = np.bincount(labels)
    weights = 1.0 / counts[labels]
    return rng.choice(len(labels), size=len(labels), p=weights / weights.sum())


def batches(
    labels: Rows, *, start: float, end: float, batch_size: int, seed: int, balanced: bool = False
) -> Iterator[Rows]:
    """Batches that cover passes ``start`` to ``end`` (fractions allowed) of the image stream.

    Consecutive ranges join without a gap or repeat, so rounds of a quarter pass see every image
    once in four rounds. Batch sizes differ by at most one: a rest of a single image would break
    batch normalisation.
    """
    count = len(labels)
    first, last = round(start * count), max(round(end * count), round(start * count) + 1)
    passes = range(first // count, (last - 1) // count + 1)
    orders = [stream_order(labels, seed=seed, number=number, balanced=balanced) for number in passes]
    stream = np.concatenate(orders)[first - passes[0] * count : last - passes[0] * count]
    number = min(round(len(stream) / batch_size), len(stream) // 2)
    yield from np.array_split(stream, max(1, number))
