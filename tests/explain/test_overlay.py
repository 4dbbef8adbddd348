"""Heat over the original image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlens.errors import ExplanationError
from fedlens.explain.overlay import OUTLINE, colour_table, overlay


@settings(max_examples=30, deadline=None)
@given(st.integers(5, 90), st.integers(5, 90), st.booleans(), st.integers(0, 2**32 - 1))
def test_own_resolution_inputs_kept_and_cold_places_untouched(
    height: int, width: int, colour: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3) if colour else (height, width), dtype=np.uint8)
    values = np.zeros((16, 16), np.float32)
    values[:8] = 1
    kept_image, kept_values = image.copy(), values.copy()
    result = overlay(image, values)
    assert result.shape == (height, width, 3) and result.dtype == np.uint8
    assert np.array_equal(image, kept_image) and np.array_equal(values, kept_values)
    cold = image[-(height // 3) :]
    assert np.array_equal(result[-(height // 3) :], cold if colour else np.repeat(cold[..., None], 3, 2))


def test_full_opacity_shows_the_colour_of_the_heat() -> None:
    result = overlay(np.full((10, 20), 99, np.uint8), np.ones((4, 4), np.float32), opacity=1.0)
    assert (result == colour_table()[255]).all()


def test_hot_places_are_where_the_map_is_hot() -> None:
    values = np.zeros((8, 8), np.float32)
    values[0, 7] = 1
    image = np.full((40, 120), 50, np.uint8)
    changed = np.abs(overlay(image, values).astype(int) - 50).sum(2)
    row, column = np.unravel_index(changed.argmax(), changed.shape)
    assert row < 6 and column >= 100


def test_outline_is_drawn_on_the_mask_and_only_there() -> None:
    image = np.zeros((60, 80), np.uint8)
    mask = np.zeros((60, 80), bool)
    mask[20:40, 30:50] = True
    result = overlay(image, np.zeros((4, 4), np.float32), mask=mask)
    assert tuple(result[20, 40]) == OUTLINE
    assert not result[25:35, 35:45].any() and not result[:15].any()


def test_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ExplanationError, match=r"\(5, 5\).*\(6, 7\)"):
        overlay(np.zeros((6, 7), np.uint8), np.zeros((4, 4), np.float32), mask=np.zeros((5, 5), bool))


def test_colours_grow_brighter_with_heat() -> None:
    table = colour_table().astype(float)
    brightness = table @ (0.299, 0.587, 0.114)
    assert table.shape == (256, 3) and (np.diff(brightness) > -1).all() and brightness[-1] > 200
