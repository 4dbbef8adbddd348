"""Phantoms: an ordinary data set whose lesions and short cuts are known."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from fedlens.errors import DataError, SettingsError
from fedlens.imaging.formats import read_image, read_mask
from fedlens.imaging.phantoms import CLASSES, PhantomTruth, draw_phantoms, read_truth, take_phantom
from fedlens.imaging.phantoms.confounders import HOSPITALS, hospitals, take
from fedlens.imaging.phantoms.drawing import Phantom, Shape, ellipse, grid
from fedlens.imaging.phantoms.mri import draw_mri
from fedlens.imaging.phantoms.plan import plan_images
from fedlens.imaging.phantoms.xray import draw_xray

Draw = Callable[[Shape, bool, np.random.Generator, np.random.Generator], Phantom]

IMAGES = 240


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_phantoms(tmp_path_factory.mktemp("phantoms") / "study", images=IMAGES, size=64)


@pytest.fixture(scope="module")
def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "manifest.csv").open(newline="") as stream:
        return {row["path"]: row for row in csv.DictReader(stream)}


@pytest.fixture(scope="module")
def truths(folder: Path) -> dict[str, PhantomTruth]:
    return read_truth(folder)


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_row_has_its_image_and_every_file_its_row(
    folder: Path, rows: dict[str, dict[str, str]], truths: dict[str, PhantomTruth]
) -> None:
    masks = {row["mask"] for row in rows.values() if row["mask"]}
    assert set(_digests(folder)) == {*rows, *masks, "manifest.csv", "truth.csv"}
    assert len(rows) == IMAGES
    assert list(truths) == list(rows)
    assert not list(folder.parent.glob(".*"))


def test_all_hospitals_have_all_classes(rows: dict[str, dict[str, str]]) -> None:
    counts = Counter((row["site"], row["modality"], row["label"]) for row in rows.values())
    wanted = {
        (habits.site, modality, label)
        for habits in HOSPITALS
        for modality, labels in CLASSES.items()
        for label in labels
    }
    assert set(counts) == wanted
    assert min(counts.values()) >= 4
    assert Counter(row["modality"] for row in rows.values()) == dict.fromkeys(CLASSES, IMAGES // 3)
    assert {row["sex"] for row in rows.values()} == {"female", "male"}
    assert all(18 <= int(row["age"]) <= 90 for row in rows.values())


def test_the_smallest_study_still_has_all_classes_everywhere(tmp_path: Path) -> None:
    draw_phantoms(tmp_path / "small", images=60, size=48)
    with (tmp_path / "small" / "manifest.csv").open(newline="") as stream:
        counts = Counter((row["site"], row["label"]) for row in csv.DictReader(stream))
    assert len(counts) == 24


def test_patients_have_one_to_three_images_of_one_hospital_and_label(
    rows: dict[str, dict[str, str]], truths: dict[str, PhantomTruth]
) -> None:
    patients: dict[str, list[dict[str, str]]] = {}
    for path, row in rows.items():
        if not truths[path].copy_of:
            patients.setdefault(row["patient"], []).append(row)
    assert Counter(map(len, patients.values())).keys() == {1, 2, 3}
    for images in patients.values():
        assert len({(row["site"], row["label"], row["age"], row["sex"]) for row in images}) == 1


def test_masks_fit_images_and_boxes_fit_masks(
    folder: Path, rows: dict[str, dict[str, str]], truths: dict[str, PhantomTruth]
) -> None:
    for path, row in rows.items():
        diseased = truths[truths[path].copy_of or path].box is not None
        assert bool(row["mask"]) == diseased
        if not row["mask"]:
            assert row["label"] not in ("nv", "mel")
            continue
        mask, image = read_mask(folder / row["mask"]), read_image(folder / path)
        assert mask.shape == image.shape[:2]
        assert 0.001 < mask.mean() < 0.6, path
        left, top, right, bottom = truths[path].box or (0, 0, 0, 0)
        assert mask[top:bottom, left:right].sum() == mask.sum()
        assert mask[top].any() and mask[bottom - 1].any()
        assert mask[:, left].any() and mask[:, right - 1].any()


def test_modalities_look_like_themselves(folder: Path, rows: dict[str, dict[str, str]]) -> None:
    for path, row in rows.items():
        image = read_image(folder / path)
        assert image.ndim == (3 if row["modality"] == "dermoscopy" else 2)
        assert image.std() > 10, path
    sizes = {read_image(folder / path).shape[:2] for path in rows}
    assert len(sizes) == len(HOSPITALS)


@pytest.mark.parametrize("draw", [draw_xray, draw_mri])
@pytest.mark.parametrize("seed", range(12))
def test_disease_changes_the_image_where_its_mask_says(draw: Draw, seed: int) -> None:
    def drawn(positive: bool) -> Phantom:
        return draw((96, 80), positive, np.random.default_rng(seed), np.random.default_rng((seed, 1)))

    healthy, diseased = drawn(False), drawn(True)
    change = np.abs(diseased.pixels - healthy.pixels)
    assert healthy.lesion is None
    assert diseased.lesion is not None
    assert change[diseased.lesion].mean() > 0.04
    assert change[diseased.lesion].mean() > 5 * change[~diseased.lesion].mean()


def test_moles_are_darker_than_the_skin_around(folder: Path, rows: dict[str, dict[str, str]]) -> None:
    for path, row in rows.items():
        if row["label"] == "nv":
            grey = read_image(folder / path).mean(axis=2)
            mask = read_mask(folder / row["mask"])
            ring = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool) & ~mask
            assert grey[mask].mean() < grey[ring].mean(), path


def test_copies_are_what_they_say(
    folder: Path, rows: dict[str, dict[str, str]], truths: dict[str, PhantomTruth]
) -> None:
    copies = [truth for truth in truths.values() if truth.copy_of]
    exact = [truth for truth in copies if not truth.mirrored]
    assert len(exact) == 3
    assert len(copies) == 6
    for truth in exact:
        assert (folder / truth.path).read_bytes() == (folder / truth.copy_of).read_bytes()
    for truth in set(copies) - set(exact):
        image, original = read_image(folder / truth.path), read_image(folder / truth.copy_of)
        assert np.abs(image[:, ::-1].astype(int) - original).mean() < 6
    assert all(rows[truth.path]["patient"] != rows[truth.copy_of]["patient"] for truth in copies)
    disagreeing = [truth for truth in exact if rows[truth.path]["label"] != rows[truth.copy_of]["label"]]
    assert len(disagreeing) == 3
    digests = Counter(digest for path, digest in _digests(folder).items() if path in rows)
    assert sorted(digests.values())[-3:] == [2] * 3


def test_confounders_follow_the_hospitals_habits(
    rows: dict[str, dict[str, str]], truths: dict[str, PhantomTruth]
) -> None:
    def share(name: str, **wanted: str) -> float:
        hits = [
            name in truths[path].confounders
            for path, row in rows.items()
            if not truths[path].copy_of and all(row[key] == value for key, value in wanted.items())
        ]
        return float(np.mean(hits))

    assert share("hospital mark", site="East", label="tumor") > 0.6
    assert share("hospital mark", site="East", label="notumor") < 0.35
    assert share("hospital mark", site="South") == 0
    assert share("hair", site="West", modality="dermoscopy") > 0.4
    assert share("hair", site="North", modality="dermoscopy") < 0.35
    assert share("vignette", site="South", modality="dermoscopy") > 0.6
    assert 0.2 < share("side letter", modality="xray") < 0.5
    assert share("hair", modality="mri") == 0


def test_another_hospital_can_be_the_one_that_marks(tmp_path: Path) -> None:
    assert hospitals() == HOSPITALS
    for site in ("South", ""):
        marking = {habits.site for habits in hospitals(site) if habits.mark_positive > 0.5}
        assert marking == ({site} if site else set())
    folder = draw_phantoms(tmp_path / "south", images=120, size=48, marker_site="South")
    marked = {path for path, truth in read_truth(folder).items() if "hospital mark" in truth.confounders}
    with (folder / "manifest.csv").open(newline="") as stream:
        sites = [row["site"] for row in csv.DictReader(stream) if row["path"] in marked]
    assert sites.count("South") / len(sites) > 0.5
    with pytest.raises(SettingsError, match="'Middle'"):
        draw_phantoms(tmp_path / "middle", images=24, size=48, marker_site="Middle")


def test_only_the_mark_differs_between_marker_sites() -> None:
    plans = [plan_images(360, np.random.default_rng(0), hospitals(site)) for site in ("North", "")]
    changed = 0
    for marking, plain in zip(*plans, strict=True):
        assert (marking.path, marking.label, marking.seed) == (plain.path, plain.label, plain.seed)
        if marking.habits.site == "North" and marking.positive and marking.modality == "mri":
            one, other = take_phantom(marking, 0, 64), take_phantom(plain, 0, 64)
            marks = len(set(one.confounders) ^ set(other.confounders))
            share = (one.pixels != other.pixels).mean()
            assert 0 < share < 0.05 if marks else share == 0
            changed += marks
    assert changed > 2


def test_taking_an_image_leaves_the_drawing_alone() -> None:
    x, y = grid((64, 64))
    drawing = np.repeat((0.3 + 0.4 * ellipse(x, y, (0, 0), (0.5, 0.5)))[..., None], 3, axis=2)
    before = drawing.copy()
    for habits in HOSPITALS:
        image, _ = take(drawing, "dermoscopy", True, habits, np.random.default_rng(0))
        assert image.shape == (64, 64, 3)
        assert image.dtype == np.uint8
    assert np.array_equal(drawing, before)


def test_the_same_seed_draws_the_same_files_and_another_one_others(tmp_path: Path) -> None:
    first = _digests(draw_phantoms(tmp_path / "a", images=24, seed=5, size=48))
    assert _digests(draw_phantoms(tmp_path / "b", images=24, seed=5, size=48)) == first
    other = _digests(draw_phantoms(tmp_path / "c", images=24, seed=6, size=48))
    assert not {path for path in first if path.startswith("mri") and other.get(path) == first[path]}


def test_progress_counts_every_image(tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    draw_phantoms(tmp_path / "a", images=24, size=48, progress=lambda *step: steps.append(step))
    assert steps == [("draw", done, 24) for done in range(1, 25)]


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(step: str, done: int, total: int) -> None:
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_phantoms(tmp_path / "a", images=24, size=48, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_existing_files_and_silly_sizes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="exists"):
        draw_phantoms(tmp_path, images=24, size=48)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(SettingsError, match="23 phantoms"):
        draw_phantoms(tmp_path / "a", images=23)
    with pytest.raises(SettingsError, match="47 pixels"):
        draw_phantoms(tmp_path / "a", size=47)


def test_a_missing_or_foreign_truth_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"truth\.csv"):
        read_truth(tmp_path)
    (tmp_path / "truth.csv").write_text("path,other\na,b\n")
    with pytest.raises(DataError, match=r"truth\.csv"):
        read_truth(tmp_path)
