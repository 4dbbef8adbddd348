from __future__ import annotations

import tracemalloc
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fedlens.coordinator.aggregation import MOST_IMAGES, RunningMean

FLOATS = st.floats(-1e6, 1e6, width=32)
IMAGES = st.integers(1, MOST_IMAGES - 1)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(npst.arrays(np.float32, (2, 3), elements=FLOATS), IMAGES), min_size=1, max_size=12))
def test_mean_is_numpys_weighted_average(updates: list[tuple[Any, int]]) -> None:
    running = RunningMean({"w": np.zeros((2, 3), np.float32)})
    for delta, images in updates:
        before = delta.copy()
        running.add({"w": delta}, images)
        np.testing.assert_array_equal(delta, before)
    mean = running.finish()["w"]
    stack = np.array([delta for delta, _ in updates], np.float64)
    expected = np.average(stack, axis=0, weights=[images for _, images in updates])
    np.testing.assert_allclose(mean, expected, rtol=1e-12, atol=1e-12 * max(1.0, np.abs(stack).max()))
    assert running.images == sum(images for _, images in updates)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(FLOATS, st.integers(1, 10**5)), min_size=1, max_size=20))
def test_mean_is_near_the_exact_rational_one(updates: list[tuple[float, int]]) -> None:
    running = RunningMean({"w": np.zeros((), np.float32)})
    for value, images in updates:
        running.add({"w": np.array(value, np.float32)}, images)
    total = sum(images for _, images in updates)
    exact = sum((Fraction(value) * images for value, images in updates), Fraction(0)) / total
    scale = max(abs(value) for value, _ in updates)
    assert abs(Fraction(float(running.finish()["w"])) - exact) <= Fraction(scale) * Fraction(1, 10**14)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2**31), st.integers(1, 2**29 - 1)), min_size=1, max_size=6))
def test_counters_become_their_mean_by_image_count(pairs: list[tuple[int, int]]) -> None:
    running = RunningMean({"count": np.array(0, np.int64)})
    for value, images in pairs:
        running.add({"count": np.array(value, np.int64)}, images)
    exact = sum(Fraction(value * images) for value, images in pairs) / sum(images for _, images in pairs)
    mean = running.finish()["count"]
    assert mean.dtype == np.int64 and mean.shape == ()
    assert abs(Fraction(int(mean)) - exact) <= Fraction(1, 2) + Fraction(1, 2**20)


@settings(deadline=None, max_examples=50)
@given(npst.arrays(np.float32, (3,), elements=FLOATS), st.lists(IMAGES, min_size=1, max_size=9))
def test_hospitals_that_agree_are_the_mean(delta: Any, images: list[int]) -> None:
    running = RunningMean({"w": delta})
    for count in images:
        running.add({"w": delta}, count)
    np.testing.assert_array_equal(running.finish()["w"].astype(np.float32), delta)


def test_weights_of_very_unequal_hospitals_are_not_lost() -> None:
    running = RunningMean({"w": np.zeros(1, np.float32)})
    running.add({"w": np.array([1.0], np.float32)}, 1)
    running.add({"w": np.array([0.0], np.float32)}, 10**8)
    assert running.finish()["w"][0] == 1 / (10**8 + 1)


def test_memory_does_not_grow_with_hospitals() -> None:
    template = {"w": np.ones(1_000_000, np.float32)}

    def peak(hospitals: int) -> int:
        tracemalloc.start()
        running = RunningMean(template)
        for index in range(hospitals):
            running.add({"w": np.full(1_000_000, index, np.float32)}, 10)
        running.finish()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(32) < 1.05 * peak(2)
