"""Copies are found whatever was done to them, and look-alikes are not taken for copies."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlens.errors import ManifestError
from fedlens.imaging.copies import COPIES_NAME, KINDS, Copies, find_copies, load_copy_groups, save_copies
from fedlens.imaging.manifest import ImageRecord, Manifest
from fedlens.imaging.scan import scan
from fedlens.imaging.structure import alike, structures

Pixels = npt.NDArray[np.uint8]


def draw(seed: int, height: int = 96, width: int = 80) -> Pixels:
    """A picture with structure of several sizes, unlike that of any other seed."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), sigma) * sigma for sigma in (2, 4, 8)
    ]
    grey = np.sum(layers, axis=0)
    return np.clip(128 + 45 * grey / grey.std(), 0, 255).astype(np.uint8)


def gather(folder: Path, pictures: dict[str, Pixels]) -> Manifest:
    """Write the pictures as files; the extension is the format."""
    records = []
    for name, pixels in pictures.items():
        assert cv2.imwrite(str(folder / name), pixels)
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        records.append(ImageRecord(name, name, "a", name, "other", "s", digest, *pixels.shape[::-1]))
    return Manifest(folder, tuple(records))


def links(manifest: Manifest, copies: Copies) -> dict[tuple[str, str], tuple[str, bool]]:
    """Kind and mirroring by file names."""
    names = [Path(record.file).name for record in manifest]
    return {
        (names[first], names[second]): (KINDS[kind], mirrored)
        for first, second, kind, _, mirrored in copies.pairs.tolist()
    }


def test_each_kind_of_copy_is_found_and_named(tmp_path: Path) -> None:
    picture = draw(1)
    curve = (255 * (picture / 255.0) ** 1.5).astype(np.uint8)
    sharper = cv2.addWeighted(curve, 1.5, cv2.GaussianBlur(curve, (0, 0), 2), -0.5, 0)
    manifest = gather(
        tmp_path,
        {
            "a.png": picture,
            "b.png": picture,
            "c.bmp": picture,
            "d.jpg": cv2.resize(picture, (160, 200)),
            "e.jpg": picture[:, ::-1],
            "f.png": (picture * 0.6 + 20).astype(np.uint8),
            "g.png": np.asarray(sharper, np.uint8),
            "h.png": draw(2),
        },
    )
    found = links(manifest, find_copies(manifest))
    assert found["a.png", "b.png"] == ("bytes", False)
    assert found["a.png", "c.bmp"] == ("pixels", False)
    assert found["a.png", "d.jpg"] == ("near", False)
    assert found["a.png", "e.jpg"] == ("near", True)
    assert found["a.png", "f.png"] == ("near", False)
    assert found["a.png", "g.png"] == ("altered", False)
    assert not any("h.png" in pair for pair in found)


def test_copy_with_a_dark_rim_is_found(tmp_path: Path) -> None:
    picture = np.maximum(draw(3), 40)
    padded = cv2.copyMakeBorder(picture, 10, 25, 30, 5, cv2.BORDER_CONSTANT, value=0)
    manifest = gather(tmp_path, {"a.png": picture, "b.png": np.asarray(padded, np.uint8)})
    assert links(manifest, find_copies(manifest)) == {("a.png", "b.png"): ("altered", False)}


def test_pictures_that_merely_look_alike_are_kept_apart(tmp_path: Path) -> None:
    """One outline and shading, other detail: like two chests, or two slices of one head."""
    shading = cv2.GaussianBlur(draw(4).astype(np.float64), (0, 0), 10)
    pictures = {
        f"{n}.png": np.clip(shading + (draw(10 + n) - 128.0) * 0.3, 0, 255).astype(np.uint8) for n in range(6)
    }
    manifest = gather(tmp_path, pictures)
    plain = np.corrcoef([pixels.ravel() for pixels in pictures.values()])
    assert plain[~np.eye(6, dtype=bool)].min() > 0.5
    assert links(manifest, find_copies(manifest)) == {}


def test_uniform_images_are_not_copies_unless_identical(tmp_path: Path) -> None:
    grey = np.full((50, 50), 90, np.uint8)
    manifest = gather(tmp_path, {"a.png": grey, "b.bmp": grey, "c.png": grey + 1, "d.png": grey + 30})
    copies = find_copies(manifest)
    assert links(manifest, copies) == {("a.png", "b.bmp"): ("pixels", False)}
    assert [Path(manifest.records[index].file).name for index in copies.flat] == ["a.png", "c.png", "d.png"]


def test_chained_copies_are_one_group_and_kinds_can_be_told_apart(tmp_path: Path) -> None:
    picture = draw(5)
    manifest = gather(
        tmp_path, {"a.png": picture, "b.png": picture, "c.jpg": picture[:, ::-1], "d.png": draw(6)}
    )
    copies = find_copies(manifest)
    assert copies.group[0] == copies.group[1] == copies.group[2] != copies.group[3]
    strict = copies.groups("bytes", "pixels")
    assert strict[0] == strict[1] and len(set(strict.tolist())) == 3


def test_frames_of_one_file_are_not_the_same_image(tmp_path: Path) -> None:
    manifest = gather(tmp_path, {"a.png": draw(7), "b.png": draw(8)})
    seen = scan(manifest)
    one, other = manifest.records
    frames = manifest.with_records(
        [replace(one, file="scan.dcm#0"), replace(other, file="scan.dcm#1", sha256=one.sha256)]
    )
    assert len(find_copies(frames, seen=seen).pairs) == 0


def test_unreadable_images_are_listed_and_copy_nothing(tmp_path: Path) -> None:
    manifest = gather(tmp_path, {"a.png": draw(1), "b.png": draw(2), "c.png": draw(3)})
    for record in manifest.records[:2]:
        manifest.path(record).write_bytes(b"no longer an image")
    seen = scan(manifest)
    assert sorted(seen.unreadable) == [0, 1]
    assert len(find_copies(manifest, seen=seen).pairs) == 0


def test_groups_are_saved_for_images_with_copies_only(tmp_path: Path) -> None:
    manifest = gather(tmp_path, {"a.png": draw(1), "b.png": draw(1), "c.png": draw(2)})
    assert load_copy_groups(manifest.folder) == {}
    save_copies(manifest, find_copies(manifest))
    groups = load_copy_groups(manifest.folder)
    assert sorted(Path(name).name for name in groups) == ["a.png", "b.png"]
    assert len(set(groups.values())) == 1


def test_torn_copies_file_is_refused_with_the_mend(tmp_path: Path) -> None:
    (tmp_path / COPIES_NAME).write_bytes(b"PAR1 and no more")
    with pytest.raises(ManifestError, match="fedlens data audit"):
        load_copy_groups(tmp_path)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    gain=st.floats(0.5, 1.0),
    offset=st.floats(0, 20),
    mirror=st.booleans(),
)
def test_brightness_and_mirroring_leave_a_picture_alike(
    seed: int, gain: float, offset: float, mirror: bool
) -> None:
    picture = draw(seed, 64, 64)
    other = np.clip(picture * gain + offset, 0, 255).astype(np.uint8)
    other = np.ascontiguousarray(other[:, ::-1]) if mirror else other
    pairs = alike(structures(np.stack([picture, other, draw(seed + 5000, 64, 64)])), 0.96)
    assert [(int(pair["first"]), int(pair["second"]), bool(pair["mirrored"])) for pair in pairs] == [
        (0, 1, mirror)
    ]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_search_by_low_frequencies_finds_what_comparing_everything_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    base = [draw(seed + n, 64, 64).astype(np.float64) for n in range(4)]
    noise = [cv2.GaussianBlur(rng.normal(size=(64, 64)), (0, 0), 1.5) * 40 for _ in range(12)]
    pictures = [base[n % 4] + noise[n] * rng.uniform(0, 0.6) for n in range(12)]
    rows = structures(np.clip(np.stack(pictures), 0, 255).astype(np.uint8))
    flipped = rows.reshape(-1, 64, 64)[:, :, ::-1].reshape(rows.shape)
    every = np.maximum(rows @ rows.T, rows @ flipped.T)
    found = alike(rows, 0.96)
    expected = np.argwhere(np.triu(every >= 0.96, k=1))
    assert np.stack([found["first"], found["second"]], axis=1).tolist() == expected.tolist()
    np.testing.assert_allclose(found["similarity"], every[tuple(expected.T)], atol=1e-5)


def test_search_leaves_its_input_alone() -> None:
    thumbnails = np.stack([draw(seed, 64, 64) for seed in range(3)])
    before = thumbnails.copy()
    rows = structures(thumbnails)
    kept = rows.copy()
    alike(rows, 0.96)
    np.testing.assert_array_equal(thumbnails, before)
    np.testing.assert_array_equal(rows, kept)
