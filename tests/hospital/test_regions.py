"""Outlines and fields of a hospital's images: of the right image, kept, and found only when asked for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from fedlens.errors import UnreadableImageError
from fedlens.hospital.regions import ImageRegions
from fedlens.imaging.field import find_field
from fedlens.imaging.formats import read_mask

from .explained import SIZE, outlined_images


def test_each_image_gets_its_own_outline_in_the_order_asked(tmp_path: Path) -> None:
    images = outlined_images(tmp_path, 12)
    regions = ImageRegions(images)
    order = np.array([7, 0, 11, 4, 0])
    masks = regions.outlines(order)
    assert masks.shape == (5, SIZE, SIZE) and masks.dtype == np.bool_
    for mask, index in zip(masks, order, strict=True):
        file = images.outlines[index]
        assert regions.outlined[index] == (file is not None)
        wanted = read_mask(file) if file else np.zeros((SIZE, SIZE), np.bool_)
        assert np.array_equal(mask, wanted)


def test_an_outline_is_read_once(tmp_path: Path) -> None:
    images = outlined_images(tmp_path, 12)
    regions = ImageRegions(images)
    before = regions.outlines(np.arange(12))
    for file in images.outlines:
        if file:
            file.unlink()
    assert np.array_equal(regions.outlines(np.arange(12)), before)


def test_a_damaged_outline_is_named(tmp_path: Path) -> None:
    images = outlined_images(tmp_path, 12)
    regions = ImageRegions(images)
    file = next(file for file in images.outlines if file)
    file.write_bytes(b"no image")
    with pytest.raises(UnreadableImageError, match=file.name):
        regions.outlines(np.arange(12))


def test_a_damaged_outline_counts_as_none_where_errors_travel_and_is_noted(tmp_path: Path) -> None:
    images = outlined_images(tmp_path, 9)
    regions = ImageRegions(images)
    damaged, *kept = np.flatnonzero(regions.outlined)
    file = images.outlines[damaged]
    assert file is not None
    whole = file.read_bytes()
    file.write_bytes(b"no image")
    masks = regions.readable_outlines(np.arange(9))
    assert masks is not None and masks.shape == (9, SIZE, SIZE)
    assert np.flatnonzero(masks.any((1, 2))).tolist() == kept
    assert regions.damaged == {images.records[damaged].image_id}
    file.write_bytes(whole)
    masks = regions.readable_outlines(np.arange(9))
    assert masks is not None and masks[damaged].any() and not regions.damaged


def test_no_file_is_looked_for_before_an_outline_is_asked_for(tmp_path: Path) -> None:
    images = outlined_images(tmp_path, 4, outlined=1)
    regions = ImageRegions(images)
    for file in images.outlines:
        if file:
            file.unlink()
    assert not regions.outlined.any()


def test_images_without_any_outline_have_empty_ones(tmp_path: Path) -> None:
    images = dataclasses.replace(outlined_images(tmp_path, 4), outlines=())
    regions = ImageRegions(images)
    assert not regions.outlined.any()
    assert not regions.outlines(np.arange(4)).any()


def test_insides_are_the_fields_of_the_images(tmp_path: Path) -> None:
    images = outlined_images(tmp_path, 4)
    regions = ImageRegions(images)
    insides = regions.insides(np.array([2, 1]))
    assert np.array_equal(insides[0], find_field(images.pixels[2], "mri").field)
    assert np.array_equal(insides[1], regions.field(1).field)
    assert insides[0, SIZE // 2, SIZE // 2] and not insides[0, 1, 1]
