"""Images, maps and outlines as bytes for a browser."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from fedlens.viewer.pictures import Thumbnails, heat, overlay_picture, polygons, shrunk


def decoded(data: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1], np.uint8)


def test_only_larger_images_shrink_and_keep_their_type() -> None:
    small = np.zeros((30, 20), np.uint8)
    large = np.full((400, 100), 60000, np.uint16)
    assert shrunk(small, 30) is small
    assert shrunk(large, 200).shape == (200, 50) and shrunk(large, 200).dtype == np.uint16
    assert shrunk(np.zeros((1, 5000, 3), np.uint8), 100).shape == (1, 100, 3)


def test_a_thumbnail_is_made_once_and_keeps_its_colours() -> None:
    made = []

    def pixels() -> npt.NDArray[np.uint8]:
        made.append(1)
        return np.full((300, 200, 3), (200, 30, 60), np.uint8)

    thumbnails = Thumbnails()
    first, again = thumbnails.get("a", pixels), thumbnails.get("a", pixels)
    assert first == again and len(made) == 1
    assert decoded(first).shape[:2] == (160, 107)
    assert np.abs(decoded(first)[50, 50].astype(int) - (200, 30, 60)).max() < 12


def test_heat_is_bytes_row_by_row() -> None:
    assert heat(np.array([[0, 1], [0.5, 0.25]], np.float32)) == bytes([0, 255, 128, 64])


def test_an_outline_covers_what_it_was_drawn_around() -> None:
    mask = np.zeros((40, 80), np.bool_)
    mask[10:30, 20:60] = True
    (polygon,) = polygons(mask)
    xs, ys = zip(*polygon, strict=True)
    assert min(xs) * 80 == 20.5 and max(xs) * 80 == 59.5 and min(ys) * 40 == 10.5 and max(ys) * 40 == 29.5
    assert polygons(None) == [] and polygons(np.zeros((4, 4), np.bool_)) == []


def test_the_picture_shows_heat_and_outline() -> None:
    values = np.zeros((4, 4), np.float32)
    values[0, 0] = 1
    mask = np.zeros((1600, 1600), np.bool_)
    mask[800:1200, 800:1200] = True
    shown = decoded(overlay_picture(np.zeros((1600, 1600), np.uint8), values, mask))
    assert shown.shape == (800, 800, 3)
    assert shown[10, 10].max() > 120 and shown[700, 100].max() < 12
    assert shown[400:600, 398:402].max() > 150
