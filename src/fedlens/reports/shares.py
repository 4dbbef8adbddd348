"""How many images of each class each hospital holds, counted from the manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedlens.imaging.manifest import SPLITS, Manifest


@dataclass(frozen=True)
class Share:
    """Images of one hospital, source, class and split."""

    hospital: str
    source: str
    label: str
    split: str
    images: int


def shares_of(manifest: Manifest) -> tuple[Share, ...]:
    """Counts over all images in use, sorted."""
    counts = Counter(
        (record.hospital, record.source, record.label, record.split)
        for record in manifest
        if record.hospital and record.split and not record.excluded
    )
    return tuple(Share(*place, images) for place, images in sorted(counts.items()))


def class_counts(
    shares: Sequence[Share],
) -> tuple[tuple[str, ...], tuple[str, ...], npt.NDArray[np.int64]]:
    """Hospitals, labels, and images (hospitals, labels) over all splits."""
    hospitals = tuple(sorted({share.hospital for share in shares}))
    labels = tuple(sorted({share.label for share in shares}))
    counts = np.zeros((len(hospitals), len(labels)), np.int64)
    for share in shares:
        counts[hospitals.index(share.hospital), labels.index(share.label)] += share.images
    return hospitals, labels, counts


def split_counts(shares: Sequence[Share]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """For each hospital its images in ``train``, ``validation`` and ``test``."""
    counts: Counter[tuple[str, str]] = Counter()
    for share in shares:
        counts[share.hospital, share.split] += share.images
    hospitals = sorted({share.hospital for share in shares})
    return tuple((name, tuple(counts[name, split] for split in SPLITS)) for name in hospitals)
