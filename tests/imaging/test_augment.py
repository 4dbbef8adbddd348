"""Augmentation: what is drawn, where pixels go, and what stays untouched."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fedlens.imaging.augment import draw_warps, warp, warp_masks
from fedlens.study import AugmentSettings

OFF = AugmentSettings(flip=0, rotation=0, free_rotation=False, zoom=0, brightness=0, crop=0)


def _photos(count: int = 6, size: int = 48, channels: int = 3) -> np.ndarray:
    noise = np.random.default_rng(3).integers(0, 256, (count, size, size, channels), dtype=np.uint8)
    return np.stack([cv2.GaussianBlur(each, (0, 0), 3).reshape(size, size, channels) for each in noise])


def _run(pixels: np.ndarray, settings: AugmentSettings, *, free: bool = False, seed: int = 0) -> np.ndarray:
    return _augmented(pixels, settings, np.random.default_rng(seed), np.full(len(pixels), free))


def _augmented(
    pixels: np.ndarray, settings: AugmentSettings, rng: np.random.Generator, free: np.ndarray
) -> np.ndarray:
    return warp(pixels, draw_warps(pixels.shape[1], settings, rng, free))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_result_is_new_repeatable_and_the_input_stays(channels: int) -> None:
    pixels = _photos(channels=channels)
    before = pixels.copy()
    first, second = _run(pixels, AugmentSettings()), _run(pixels, AugmentSettings())
    assert first.shape == pixels.shape
    assert first.dtype == np.uint8
    assert np.array_equal(first, second)
    assert not np.shares_memory(first, pixels)
    assert np.array_equal(pixels, before)
    assert not np.array_equal(first, _run(pixels, AugmentSettings(), seed=1))


def test_read_only_pixels_are_accepted() -> None:
    pixels = _photos()
    pixels.flags.writeable = False
    assert _run(pixels, AugmentSettings()).flags.writeable


def test_no_images_give_no_images() -> None:
    assert _run(_photos()[:0], AugmentSettings()).shape == (0, 48, 48, 3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [17, 32])
def test_everything_off_changes_nothing(channels: int, size: int) -> None:
    pixels = _photos(size=size, channels=channels)
    assert np.array_equal(_run(pixels, OFF), pixels)


def test_a_certain_flip_mirrors_exactly() -> None:
    pixels = _photos()
    assert np.array_equal(_run(pixels, OFF.model_copy(update={"flip": 1.0})), pixels[:, :, ::-1])


def test_half_of_the_images_are_flipped() -> None:
    pixels = _photos(400, 16)
    flipped = _run(pixels, OFF.model_copy(update={"flip": 0.5}))
    mirrored = np.array([np.array_equal(a, b[:, ::-1]) for a, b in zip(flipped, pixels, strict=True)])
    kept = np.array([np.array_equal(a, b) for a, b in zip(flipped, pixels, strict=True)])
    assert np.all(mirrored ^ kept)
    assert 160 < mirrored.sum() < 240


def test_one_image_does_not_depend_on_the_others_options() -> None:
    pixels = _photos()
    settings = AugmentSettings()
    upright = _augmented(pixels, settings, np.random.default_rng(0), np.zeros(6, np.bool_))
    mixed = _augmented(pixels, settings, np.random.default_rng(0), np.arange(6) == 2)
    for index in range(6):
        assert np.array_equal(upright[index], mixed[index]) == (index != 2)


def test_batches_of_any_cut_draw_the_same() -> None:
    pixels = _photos()
    rng = np.random.default_rng(0)
    upright = np.zeros(3, np.bool_)
    parts = [_augmented(pixels[cut], AugmentSettings(), rng, upright) for cut in np.split(np.arange(6), 2)]
    assert np.array_equal(np.concatenate(parts), _run(pixels, AugmentSettings()))


def _angles(pixels: np.ndarray) -> np.ndarray:
    """Direction of a bright dot seen from the middle, degrees."""
    size = pixels.shape[1]
    grid = np.arange(size) - (size - 1) / 2
    weight = pixels[..., 0].astype(float)
    return np.degrees(np.arctan2((weight * grid[:, None]).sum((1, 2)), (weight * grid).sum((1, 2))))


def test_rotation_stays_within_its_range_and_free_rotation_goes_all_round() -> None:
    image = np.zeros((65, 65, 1), np.uint8)
    cv2.circle(image, (50, 32), 4, 255, -1)
    pixels = np.repeat(image[None], 300, axis=0)
    settings = OFF.model_copy(update={"rotation": 15.0, "free_rotation": True})
    upright = _angles(_run(pixels, settings))
    assert 14 < np.abs(upright).max() < 16
    assert -2 < upright.mean() < 2
    assert np.abs(_angles(_run(pixels, settings, free=True))).max() > 170


def test_zoom_changes_the_size_within_its_range() -> None:
    image = np.zeros((101, 101, 1), np.uint8)
    cv2.rectangle(image, (30, 30), (70, 70), 255, -1)
    result = _run(np.repeat(image[None], 200, axis=0), OFF.model_copy(update={"zoom": 0.2}))
    sides = np.sqrt(result.sum((1, 2, 3)) / 255) / 41
    assert 1.17 < sides.max() < 1.23
    assert 0.81 < sides.min() < 0.86


def test_a_crop_stays_inside_the_image() -> None:
    pixels = np.full((200, 64, 64, 1), 90, np.uint8)
    pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1] = 200, 200, 200, 200
    result = _run(pixels, OFF.model_copy(update={"crop": 0.3}))
    assert result.min() >= 80  # black would mean that a window left the image
    borders = np.stack([result[:, 0, 32, 0], result[:, -1, 32, 0]]) > 120
    assert np.any(borders.sum(axis=0) == 0)
    assert np.any(borders.sum(axis=0) == 1)


def test_brightness_is_bounded_and_keeps_order() -> None:
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[None, None, :, None], (300, 64, 1, 1))
    result = _run(ramp, OFF.model_copy(update={"brightness": 0.15})).astype(int)
    assert np.all(np.diff(result[:, 0, :, 0], axis=1) >= 0)
    change = result[:, 0, 32, 0] - int(ramp[0, 0, 32, 0])
    assert change.max() <= 0.15 * 255 + 0.15 * 130 + 1
    assert change.max() > 40
    assert change.min() < -40


def test_upright_images_lie_on_black_and_skin_goes_on() -> None:
    pixels = np.full((20, 48, 48, 3), 120, np.uint8)
    settings = OFF.model_copy(update={"rotation": 40.0})
    assert _run(pixels, settings).min() == 0
    assert np.all(_run(pixels, settings, free=True) == 120)


@pytest.mark.parametrize("free", [False, True])
def test_a_mask_moves_as_its_image_does(free: bool) -> None:
    place = np.arange(64)
    disc = (place[:, None] - 20) ** 2 + (place - 36) ** 2 < 120
    pixels = np.repeat(np.where(disc, 200, 20).astype(np.uint8)[None, :, :, None], 40, axis=0)
    settings = AugmentSettings(brightness=0)
    warps = draw_warps(64, settings, np.random.default_rng(5), np.full(40, free))
    masks = np.repeat(disc[None], 40, axis=0)
    before = masks.copy()
    moved = warp_masks(masks, warps)
    seen = warp(pixels, warps)[..., 0] > 110
    assert moved.dtype == np.bool_
    assert np.array_equal(masks, before)
    # Nearest and linear interpolation differ at the rim only.
    overlap = (moved & seen).sum(axis=(1, 2)) / (moved | seen).sum(axis=(1, 2))
    assert overlap.min() > 0.9
    assert not np.array_equal(moved[0], moved[1])


def test_what_lies_beyond_an_upright_image_is_outside() -> None:
    settings = AugmentSettings(flip=0, rotation=45, zoom=0, brightness=0, crop=0)
    warps = draw_warps(64, settings, np.random.default_rng(0), np.zeros(20, np.bool_))
    moved = warp_masks(np.ones((20, 64, 64), np.bool_), warps)
    assert not moved[:, 0, 0].all()
    assert moved[:, 32, 32].all()
