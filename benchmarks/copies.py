"""How well the audit's copies agree with what is known about three public data sets.

Recall and precision count pairs of images in one group: recall over the pairs that the data set's
index joins, precision over the pairs that were found. The index of the brain images knows copies in
two ways. ``dup_group`` joins the same slice, but misses many pairs among the notumor images, above all
mirrored ones, down to pairs without a visible difference (``near_missed_by_index``: found as copies,
not joined by the index, and less than half a grey level apart on average). ``cluster`` is wider: same
slice or same series. So precision is given against ``dup_group`` overall and on the tumour classes,
where the index was checked against the original data set, and against ``cluster``.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from _figures import write_figures

from fedlens.imaging.copies import Copies, find_copies
from fedlens.imaging.importer import import_images
from fedlens.imaging.manifest import Manifest
from fedlens.imaging.scan import Scan, scan

Groups = npt.NDArray[np.int64]

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SAME_GREY_LEVELS = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of brain_mri, chest_xray, ham10000")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, judge in (("brain_mri", brain), ("chest_xray", chest), ("ham10000", skin)):
            manifest = import_images([options.data / name], Path(folder) / name).manifest
            start, worked = time.perf_counter(), time.process_time()
            seen = scan(manifest)
            read = time.perf_counter()
            copies = find_copies(manifest, seen=seen)
            sizes = np.bincount(copies.group)
            figures |= {
                f"{name}_images": len(manifest),
                f"{name}_copy_groups": int((sizes > 1).sum()),
                f"{name}_largest_group": int(sizes.max()),
                f"{name}_read_seconds": read - start,
                f"{name}_compare_seconds": time.perf_counter() - read,
                f"{name}_processor_seconds": time.process_time() - worked,
            }
            figures |= {
                f"{name}_{key}": value
                for key, value in judge(options.data / name, manifest, seen, copies).items()
            }
    write_figures(options.json, figures)


def brain(folder: Path, manifest: Manifest, seen: Scan, copies: Copies) -> dict[str, float]:
    """Near copies against ``dup_group``; copies of all kinds against ``cluster``."""
    rows = index(folder, manifest)
    known = numbered([row["dup_group"] for row in rows])
    related = numbered([row["cluster"] for row in rows])
    near = copies.groups("bytes", "pixels", "near")
    tumour = np.array([record.label != "notumor" for record in manifest])
    whole = [set(np.flatnonzero(known == group)) for group in np.flatnonzero(np.bincount(known) > 1)]
    found = [set(np.flatnonzero(near == near[min(group)])) for group in whole]
    return {
        "recall": pairs(near, known) / pairs(known),
        "precision_dup_group": pairs(near, known) / pairs(near),
        "precision_dup_group_tumours": pairs(near[tumour], known[tumour]) / pairs(near[tumour]),
        "precision_cluster": pairs(near, related) / pairs(near),
        "groups_kept_together": float(np.mean([one <= two for one, two in zip(whole, found, strict=True)])),
        "groups_found_exactly": float(np.mean([one == two for one, two in zip(whole, found, strict=True)])),
        "near_pairs": pairs(near),
        "near_missed_by_index": missed_by_index(seen, copies, known),
        "all_pairs": pairs(copies.group),
        "all_precision_cluster": pairs(copies.group, related) / pairs(copies.group),
        "all_precision_cluster_tumours": pairs(copies.group[tumour], related[tumour])
        / pairs(copies.group[tumour]),
    }


def chest(folder: Path, manifest: Manifest, seen: Scan, copies: Copies) -> dict[str, float]:
    """All copies against ``dup_group``, which holds byte-identical originals only."""
    rows = index(folder, manifest)
    known = numbered([row["dup_group"] or row["path"] for row in rows])
    return {
        "extra_copies": len(manifest) - len(np.unique(copies.group)),
        "recall": pairs(copies.group, known) / pairs(known),
        "precision": pairs(copies.group, known) / pairs(copies.group),
    }


def skin(folder: Path, manifest: Manifest, seen: Scan, copies: Copies) -> dict[str, float]:
    """Nothing is known about copies here; few should join different lesions."""
    lesions = numbered([record.group for record in manifest])
    return {
        "pairs": pairs(copies.group),
        "pairs_across_lesions": pairs(copies.group) - pairs(copies.group, lesions),
    }


def index(folder: Path, manifest: Manifest) -> list[dict[str, str]]:
    """Rows of ``index.csv`` in the order of the manifest."""
    with (folder / "index.csv").open(newline="") as stream:
        rows = {row["path"]: row for row in csv.DictReader(stream)}
    return [rows[record.image_id.split("/", 1)[1]] for record in manifest]


def numbered(keys: Sequence[Hashable]) -> Groups:
    """Equal numbers for equal keys."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def pairs(groups: Groups, also: Groups | None = None) -> int:
    """Pairs of images in one group, and if given in one group of ``also``."""
    table = groups[:, None] if also is None else np.stack([groups, also], axis=1)
    sizes = np.unique(table, axis=0, return_counts=True)[1]
    return int((sizes * (sizes - 1) // 2).sum())


def missed_by_index(seen: Scan, copies: Copies, known: Groups) -> int:
    """Links between pictures that the index keeps apart and nobody could."""
    count = 0
    for first, second, _, _, mirrored in copies.pairs.tolist():
        if known[first] != known[second]:
            other = seen.whole[second][:, ::-1] if mirrored else seen.whole[second]
            count += bool(np.abs(seen.whole[first] - other.astype(float)).mean() < SAME_GREY_LEVELS)
    return count


if __name__ == "__main__":
    main()
