from __future__ import annotations

import numpy as np
import pytest

from fedlens.coordinator.ranges import RangeKeeper
from fedlens.protocol.encoding import WIDE_BITS, exponent_counts
from fedlens.protocol.messages import Parameters

TEMPLATE: Parameters = {
    "w": np.array([0.5, -3.0], np.float32),
    "bias": np.zeros(2, np.float32),
    "norm.running_var": np.ones(2, np.float32),
}
NAMES = list(TEMPLATE)
BUFFERS = frozenset({"norm.running_var"})
MEAN: Parameters = {name: np.full(2, 0.01) for name in NAMES}


def learnt(*largest: float, carried: Parameters | None = None) -> RangeKeeper:
    keeper = RangeKeeper(carried or {}, 0.0)
    counts = sum(exponent_counts(np.array([size, size, size])) for size in largest)
    keeper.learn(NAMES, counts, MEAN, ["w", "bias"])
    return keeper


def test_the_first_round_is_wide() -> None:
    bits, ranges = RangeKeeper({}, 0.0).ranges(TEMPLATE, NAMES, 16, BUFFERS)
    assert bits == WIDE_BITS and ranges.tolist() == [12.0, 4.0, 4096.0] and ranges.dtype == np.float32


def test_later_rounds_hold_twice_the_largest_of_the_last() -> None:
    bits, ranges = learnt(0.001, 0.3, 0.02).ranges(TEMPLATE, NAMES, 16, BUFFERS)
    assert bits == 16
    assert all(2 * 0.3 <= reach <= 4 * 0.3 for reach in ranges)


def test_a_network_with_a_new_array_starts_wide_again() -> None:
    bits, _ = learnt(0.1).ranges({**TEMPLATE, "new": np.ones(1, np.float32)}, [*NAMES, "new"], 16, BUFFERS)
    assert bits == WIDE_BITS


def test_the_norm_bound_follows_the_largest_mean_and_forgives_a_warm_up() -> None:
    keeper = RangeKeeper({}, 0.0)
    own = float(np.linalg.norm(TEMPLATE["w"]))
    assert keeper.norm_bound(TEMPLATE, ["w", "bias"]) == pytest.approx(20 * own)
    keeper.learn(NAMES, exponent_counts(np.ones(3)), {name: np.full(2, 5.0) for name in NAMES}, ["w"])
    assert keeper.norm_bound(TEMPLATE, ["w"]) == pytest.approx(20 * np.sqrt(50), rel=1e-6)
    keeper.learn(NAMES, exponent_counts(np.ones(3)), MEAN, ["w"])
    assert keeper.norm_bound(TEMPLATE, ["w"]) == pytest.approx(20 * np.sqrt(50), rel=1e-6)
    assert learnt(0.1).norm_bound(TEMPLATE, ["w", "bias"]) == pytest.approx(20 * 0.01 * own, rel=1e-6)
    assert RangeKeeper({}, 3.0).norm_bound(TEMPLATE, ["w"]) == 3.0


def test_what_is_carried_is_enough_to_go_on() -> None:
    keeper = learnt(0.1)
    keeper.enrolled(123)
    again = RangeKeeper(keeper.carried(), 0.0)
    assert again.images == 123
    assert (
        again.ranges(TEMPLATE, NAMES, 16, BUFFERS)[1].tolist()
        == keeper.ranges(TEMPLATE, NAMES, 16, BUFFERS)[1].tolist()
    )
    assert again.norm_bound(TEMPLATE, ["w"]) == keeper.norm_bound(TEMPLATE, ["w"])
    assert all(array.dtype in (np.float32, np.int64) for array in keeper.carried().values())
