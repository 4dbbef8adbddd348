from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from fedlens.errors import DataError
from fedlens.imaging.formats import read_record
from fedlens.imaging.importer import import_images
from fedlens.imaging.manifest import Manifest
from fedlens.imaging.packing import pack_study, unpack_study


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    rng = np.random.default_rng(0)
    for number in range(6):
        path = tmp_path / "source" / ("a" if number % 2 else "b") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        smooth = cv2.GaussianBlur(rng.integers(0, 256, (90, 120, 3)).astype(np.uint8), (0, 0), 9)
        cv2.imwrite(str(path), smooth)
    return import_images([tmp_path / "source"], tmp_path / "study").manifest


def test_a_pack_brings_labels_groups_and_nearly_the_same_pixels(manifest: Manifest, tmp_path: Path) -> None:
    pack_study(manifest, tmp_path / "study.pack", size=120)
    unpacked = unpack_study(tmp_path / "study.pack", tmp_path / "carried")
    assert [(r.image_id, r.label, r.group) for r in unpacked] == [
        (r.image_id, r.label, r.group) for r in manifest
    ]
    for before, after in zip(manifest, unpacked, strict=True):
        difference = read_record(manifest, before).astype(int) - read_record(unpacked, after)
        assert np.abs(difference).mean() < 3


def test_a_pack_stays_within_its_budget_at_the_training_resolution(
    manifest: Manifest, tmp_path: Path
) -> None:
    pack_study(manifest, tmp_path / "small.pack", size=64, megabytes=0.02)
    assert (tmp_path / "small.pack").stat().st_size <= 20_000
    unpacked = unpack_study(tmp_path / "small.pack", tmp_path / "carried")
    assert {read_record(unpacked, record).shape for record in unpacked} == {(64, 64, 3)}
    with pytest.raises(DataError, match="do not fit"):
        pack_study(manifest, tmp_path / "tiny.pack", size=64, megabytes=0.002)
    assert not (tmp_path / "tiny.pack").exists()


def test_a_damaged_or_foreign_pack_leaves_no_study(manifest: Manifest, tmp_path: Path) -> None:
    pack_study(manifest, tmp_path / "study.pack", size=64)
    content = (tmp_path / "study.pack").read_bytes()
    (tmp_path / "torn.pack").write_bytes(content[: len(content) // 2])
    with zipfile.ZipFile(tmp_path / "foreign.pack", "w") as archive:
        archive.writestr("../evil", b"")
    for name in ("torn.pack", "foreign.pack"):
        with pytest.raises(DataError):
            unpack_study(tmp_path / name, tmp_path / "carried")
        assert not (tmp_path / "carried").exists()
