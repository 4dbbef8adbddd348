"""Copies: one picture under several names, whatever was done to it in between.

Found by content alone, in four kinds. The thresholds were set on the Nickparvar brain, Kermany chest
and HAM10000 images: the fine structure (see ``structure``) of neighbouring slices of one head
correlates by less than 0.95, that of two chests by less than 0.90, of two lesions by less than 0.95;
that of one picture resized, re-saved or brightened by 0.99 and more, sharpened or re-windowed by 0.96
and more as a rule: what was altered more strongly still is missed.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fedlens.errors import ManifestError
from fedlens.files import whole_file
from fedlens.imaging.components import components
from fedlens.imaging.formats import locate
from fedlens.imaging.manifest import Manifest
from fedlens.imaging.scan import Scan, scan
from fedlens.imaging.structure import Indices, Pixels, alike, structures
from fedlens.progress import Progress, silent

KINDS = ("bytes", "pixels", "near", "altered")
"""Same file; same pixels; same picture resized, re-saved, brightened or mirrored; same picture with its
contrast curve, sharpness or crop changed."""

PAIR = np.dtype(
    [
        ("first", np.int64),
        ("second", np.int64),
        ("kind", np.int64),
        ("similarity", np.float32),
        ("mirrored", np.bool_),
    ]
)

COPIES_NAME = "copies.parquet"
SAME_STRUCTURE = 0.96
# Stricter: cutting off the rim also aligns pictures that merely have the same outline.
SAME_TRIMMED_STRUCTURE = 0.98
SAME_PICTURE = 0.9993


@dataclass(frozen=True)
class Copies:
    """Copies among the N images of a manifest.

    Attributes:
        pairs: ``PAIR`` records with first < second: indices of two images, index of the kind in
            ``KINDS``, correlation of their structure, whether one is mirrored left to right. Not
            every pair of a group is listed: identical images are linked to the first of their sort.
        group: int64 (N,); chained copies of all kinds have the same number.
        flat: int64 (F,); images without structure, compared by their exact pixels only.
    """

    pairs: npt.NDArray[np.void]
    group: Indices
    flat: Indices

    def groups(self, *kinds: str) -> Indices:
        """Groups that copies of these kinds alone make, int64 (N,)."""
        wanted = self.pairs[np.isin(self.pairs["kind"], [KINDS.index(kind) for kind in kinds])]
        return components(len(self.group), wanted["first"], wanted["second"])


def find_copies(manifest: Manifest, *, seen: Scan | None = None, progress: Progress = silent) -> Copies:
    """Find all copies among the images of a manifest; labels, splits and groups play no part.

    Args:
        manifest: The images.
        seen: A scan of just these images, if there is one already.
        progress: Told of every image read and of every block compared.
    """
    seen = scan(manifest, progress=progress) if seen is None else seen
    # Frames of one file share its digest; an unreadable image has the pixels of no other.
    files = [(record.sha256, locate(manifest, record)[1]) for record in manifest]
    pixels = [digest or index for index, digest in enumerate(seen.digests)]
    same_file, same_pixels = _identical(files, "bytes"), _identical(pixels, "pixels")
    distinct = np.setdiff1d(np.arange(len(manifest)), [*same_pixels["second"], *seen.unreadable])
    rows = structures(seen.whole[distinct])
    structured = rows.any(axis=1)
    pictures, rows = distinct[structured], rows[structured]
    whole = alike(rows, SAME_STRUCTURE, progress=progress, step="compare images")
    kinds = np.where(_correlation(seen.whole[pictures], whole) >= SAME_PICTURE, "near", "altered")
    trimmed = alike(
        structures(seen.content[pictures]), SAME_TRIMMED_STRUCTURE, progress=progress, step="compare trimmed"
    )
    pairs = _first_mention(
        same_file,
        same_pixels,
        _pairs(whole, kinds, pictures),
        _pairs(trimmed, np.full(len(trimmed), "altered"), pictures),
    )
    group = components(len(manifest), pairs["first"], pairs["second"])
    return Copies(pairs=pairs, group=group, flat=distinct[~structured])


def save_copies(manifest: Manifest, copies: Copies) -> Path:
    """Write ``copies.parquet`` beside the manifest: the copy group of every image that has copies."""
    grouped = np.bincount(copies.group)[copies.group] > 1 if len(copies.group) else np.zeros(0, bool)
    table = pa.table(
        {
            "image_id": [manifest.records[index].image_id for index in np.flatnonzero(grouped)],
            "copy_group": pa.array(copies.group[grouped], pa.int64()),
        }
    )
    target = manifest.folder / COPIES_NAME
    with whole_file(target) as part:
        pq.write_table(table, part, compression="zstd")
    return target


def load_copy_groups(folder: Path) -> dict[str, int]:
    """Copy group by image id, as the last audit found them; empty before the first audit.

    Raises:
        ManifestError: The file is torn.
    """
    path = folder / COPIES_NAME
    if not path.is_file():
        return {}
    try:
        table = pq.read_table(path, columns=["image_id", "copy_group"])
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(
            f"Cannot read {path}: {error}.", fix=f"Make it again with: fedlens data audit {folder}"
        ) from error
    return dict(zip(table["image_id"].to_pylist(), table["copy_group"].to_pylist(), strict=True))


def _identical(keys: Sequence[Hashable], kind: str) -> npt.NDArray[np.void]:
    """Pairs of every item with the first one of the same key."""
    firsts: dict[Hashable, int] = {}
    found = [(firsts.setdefault(key, index), index) for index, key in enumerate(keys)]
    rows = [(first, index, KINDS.index(kind), 1.0, False) for first, index in found if first != index]
    return np.array(rows, PAIR)


def _pairs(
    found: npt.NDArray[np.void], kinds: npt.NDArray[np.str_], indices: Indices
) -> npt.NDArray[np.void]:
    """Pairs of pictures as pairs of images; ``indices`` says which image each picture is."""
    pairs = np.zeros(len(found), PAIR)
    pairs["first"], pairs["second"] = indices[found["first"]], indices[found["second"]]
    pairs["kind"] = [KINDS.index(kind) for kind in kinds]
    pairs["similarity"], pairs["mirrored"] = found["similarity"], found["mirrored"]
    return pairs


def _first_mention(*parts: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """All pairs, each once, as the earliest part describes it; ordered by both indices."""
    every = np.concatenate(parts)
    _, places = np.unique(every[["first", "second"]], return_index=True)
    return every[places]


def _correlation(thumbnails: Pixels, found: npt.NDArray[np.void]) -> npt.NDArray[np.float64]:
    """Plain correlation of the thumbnails of each pair, mirrored where the pair is; float64 (P,)."""
    out = np.zeros(len(found))
    for place, (first, second, _, mirrored) in enumerate(found.tolist()):
        one, other = thumbnails[first], thumbnails[second]
        out[place] = np.corrcoef(one.ravel(), (other[:, ::-1] if mirrored else other).ravel())[0, 1]
    return out
