"""The field of phantoms, whose letters, rulers, corners and hairs are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from fedlens.errors import DataError
from fedlens.imaging.field import FieldMasks, find_field
from fedlens.imaging.formats import read_image
from fedlens.imaging.phantoms import TakenPhantom, take_phantom
from fedlens.imaging.phantoms.plan import plan_images
from fedlens.imaging.preprocess import preprocess
from fedlens.study import PreprocessSettings

_SIZE = 160


def _taken(
    modality: str, count: int, *, marked: bool = False, drawn: int = _SIZE, size: int = _SIZE
) -> Iterator[tuple[TakenPhantom, FieldMasks]]:
    for image in plan_images(3 * count, np.random.default_rng(0)):
        if image.modality != modality:
            continue
        if marked:
            habits = dataclasses.replace(image.habits, mark_positive=1.0, mark_negative=1.0)
            image = dataclasses.replace(image, habits=habits)
        taken = take_phantom(image, 0, drawn)
        pixels = preprocess(taken.pixels, PreprocessSettings(size=size), modality)
        yield taken, find_field(pixels, modality)


@pytest.mark.parametrize("modality", ["xray", "mri", "dermoscopy"])
def test_lesions_lie_in_the_field_and_on_nothing_suspected(modality: str) -> None:
    for taken, found in _taken(modality, 24):
        if taken.lesion is None:
            continue
        lesion = cv2.resize(taken.lesion.astype(np.uint8), (_SIZE, _SIZE)).astype(bool)
        assert found.field[lesion].mean() > 0.97
        assert (found.text | found.border | found.corners)[lesion].mean() < 0.02
        if "hair" not in taken.confounders:
            assert found.hair[lesion].mean() < 0.1


def test_heads_are_found_on_black() -> None:
    for _, found in _taken("mri", 16):
        assert 0.25 < found.field.mean() < 0.75
        assert found.field[60:100, 60:100].all()
        assert not found.field[:8, :8].any() and not found.field[-8:, -8:].any()


@pytest.mark.parametrize(("modality", "least"), [("mri", 1.0), ("xray", 0.75)])
def test_letters_are_found_where_they_are_burnt_in(modality: str, least: float) -> None:
    hits = []
    for _, found in _taken(modality, 24, marked=True):
        rows, columns = np.nonzero(found.text[:, _SIZE // 2 :])
        hits.append(len(rows) > 0 and rows.max() < 0.3 * _SIZE and columns.min() > 0.2 * _SIZE)
    assert np.mean(hits) >= least


def test_images_without_letters_have_no_text() -> None:
    clean = [found.text.mean() for taken, found in _taken("mri", 40) if not taken.confounders]
    assert len(clean) > 20 and max(clean) == 0


def test_rulers_hairs_and_dark_corners() -> None:
    shares: dict[tuple[str, bool], list[float]] = {}
    # At less, preparation's median filter takes the thin ticks away.
    for taken, found in _taken("dermoscopy", 60, drawn=320, size=224):
        for name, mask in (("ruler", found.text), ("hair", found.hair), ("vignette", found.corners)):
            shares.setdefault((name, name in taken.confounders), []).append(float(mask.mean()))
    for name, least in (("ruler", 0.005), ("hair", 0.02), ("vignette", 0.01)):
        assert np.median(shares[name, True]) > least, name
        assert np.quantile(shares[name, False], 0.9) < least / 4, name


def test_frames_and_bars_are_border() -> None:
    film = np.full((128, 128), 120, np.uint8)
    film += np.random.default_rng(0).integers(0, 60, film.shape, np.uint8)
    film[:, :10] = 0
    found = find_field(film, "xray")
    assert found.border[:, :10].all() and not found.border[:, 12:].any()
    assert not found.field[:, :10].any() and found.field[:, 12:].all()
    head = np.zeros((128, 128), np.uint8)
    cv2.circle(head, (64, 64), 45, 180, cv2.FILLED)
    assert not find_field(head, "mri").border.any()
    head[0], head[-1], head[:, 0], head[:, -1] = 255, 255, 255, 255
    found = find_field(head, "mri")
    assert found.border[0].all() and found.border[:, -1].all() and not found.border[3:-3, 3:-3].any()
    assert found.field[64, 64] and not found.field[5, 5]


def test_a_thin_grey_frame_and_a_strip_at_the_edge_are_no_body() -> None:
    head = np.zeros((128, 128), np.uint8)
    cv2.circle(head, (64, 64), 50, 180, cv2.FILLED)
    framed = head.copy()
    framed[0], framed[:, -1] = 90, 90
    found = find_field(framed, "mri")
    assert found.border[0].all() and found.border[:, -1].all() and not found.field[:3].any()
    strip = head.copy()
    strip[2:6, 20:100] = 200
    assert not find_field(strip, "mri").field[:8].any()


def test_rib_ends_are_no_letters() -> None:
    film = np.full((128, 128), 90, np.uint8)
    letter = film.copy()
    cv2.putText(letter, "R", (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.45, 240, 2, cv2.LINE_AA)
    found = find_field(letter, "xray").text
    assert found[10:18, 8:16].mean() > 0.8 and not found[30:].any()
    for row in range(0, 90, 18):
        film[row : row + 32, :32] = np.maximum(film[row : row + 32, :32], letter[:32, :32])
    assert not find_field(film, "xray").text.any()


def test_an_image_without_a_dark_ground_is_all_field() -> None:
    skin = np.full((64, 64, 3), (220, 180, 170), np.uint8)
    for modality in ("xray", "mri", "dermoscopy"):
        found = find_field(skin, modality)
        assert found.field.all() and not (found.text | found.border | found.corners | found.hair).any()


def test_an_empty_image_has_a_field_too() -> None:
    for value in (0, 255):
        for modality in ("xray", "mri", "dermoscopy"):
            found = find_field(np.full((48, 48), value, np.uint8), modality)
            assert found.field.shape == (48, 48) and not found.text.any()


def test_grey_and_rgb_give_the_same_and_the_image_stays_as_it_was() -> None:
    grey = next(_taken("mri", 4))[0].pixels[:160, :160]
    before = grey.copy()
    flat, deep = find_field(grey, "mri"), find_field(np.repeat(grey[..., None], 3, axis=2), "mri")
    for field in dataclasses.fields(FieldMasks):
        mask = getattr(flat, field.name)
        assert mask.dtype == np.bool_ and np.array_equal(mask, getattr(deep, field.name))
    assert np.array_equal(grey, before)


@pytest.mark.parametrize("shape", [(64, 32), (31, 31), (64, 64, 2), (64,)])
def test_other_arrays_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="No field"):
        find_field(np.zeros(shape, np.uint8), "xray")
    with pytest.raises(DataError, match="float"):
        find_field(np.zeros((64, 64)), "xray")  # type: ignore[arg-type]


@pytest.mark.real
def test_real_tumours_lie_in_the_head(shared_data: Path) -> None:
    folder = shared_data / "brain_mri"
    shares, areas = [], []
    for path in sorted((folder / "masks").rglob("*.png"))[::60]:
        image = folder / path.relative_to(folder / "masks").with_suffix(".jpg")
        pixels = preprocess(read_image(image), PreprocessSettings(size=128), "mri")
        found = find_field(pixels, "mri")
        lesion = cv2.resize((read_image(path) > 0).astype(np.uint8), (128, 128)).astype(bool)
        if lesion.any():
            shares.append(found.field[lesion].mean())
            areas.append(found.field.mean())
    assert len(shares) >= 20 and np.mean(np.array(shares) > 0.98) > 0.95
    assert np.median(areas) < 0.75
