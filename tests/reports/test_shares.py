from __future__ import annotations

from pathlib import Path

from fedlens.imaging.manifest import ImageRecord, Manifest
from fedlens.reports.shares import Share, class_counts, shares_of, split_counts


def record(number: int, hospital: str, label: str, split: str, excluded: str = "") -> ImageRecord:
    return ImageRecord(
        f"s/{number}",
        "f",
        label,
        "g",
        "mri",
        "s",
        "0",
        1,
        1,
        split=split,
        hospital=hospital,
        excluded=excluded,
    )


def test_images_in_use_are_counted() -> None:
    manifest = Manifest(
        Path(),
        (
            record(0, "B", "x", "train"),
            record(1, "B", "x", "train"),
            record(2, "A", "y", "test"),
            record(3, "", "y", "test"),
            record(4, "A", "y", "test", excluded="copies with conflicting labels"),
        ),
    )
    shares = shares_of(manifest)
    assert shares == (Share("A", "s", "y", "test", 1), Share("B", "s", "x", "train", 2))
    hospitals, labels, counts = class_counts(shares)
    assert (hospitals, labels, counts.tolist()) == (("A", "B"), ("x", "y"), [[0, 1], [2, 0]])
    assert split_counts(shares) == (("A", (0, 0, 1)), ("B", (2, 0, 0)))
