from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import trim_mean

from fedlens.coordinator.robust import ComparedUpdates, krum
from fedlens.coordinator.rounds import run_rounds
from fedlens.engines.local import LocalEngine
from fedlens.errors import NotEnoughHospitalsError
from fedlens.protocol.messages import Update

from .fakes import FakeHospital, LyingHospital, initial_parameters, make_settings

TEMPLATE = {"w": np.zeros((2, 3), np.float32), "count": np.array(0, np.int64)}


def finished(strategy: str, values: list[np.ndarray], counts: list[int]) -> dict[str, np.ndarray]:
    compared = ComparedUpdates(strategy, TEMPLATE)
    for value, count in zip(values, counts, strict=True):
        compared.add({"w": value, "count": np.array(count, np.int64)}, 10)
    assert compared.images == 10 * len(values)
    return compared.finish()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 9))
def test_median_and_trimmed_mean_are_numpys_and_scipys(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    values = [rng.normal(size=(2, 3)).astype(np.float32) for _ in range(count)]
    counts = rng.integers(0, 100, count).tolist()
    middle = finished("median", values, counts)
    np.testing.assert_array_equal(middle["w"], np.median(np.stack(values).astype(np.float64), axis=0))
    assert middle["count"] == np.rint(np.median(counts)) and middle["count"].shape == ()
    share = min(max(1, int(0.2 * count)), (count - 1) // 2) / count
    trimmed = trim_mean(np.stack(values).astype(np.float64), share + 1e-9, axis=0)
    np.testing.assert_allclose(finished("trimmed-mean", values, counts)["w"], trimmed, rtol=1e-6)


def test_krum_takes_one_of_the_crowd_whole() -> None:
    rng = np.random.default_rng(0)
    crowd = [rng.normal(scale=0.1, size=(2, 3)).astype(np.float32) for _ in range(5)]
    far = [np.full((2, 3), size, np.float32) for size in (50.0, -80.0)]
    chosen = finished("krum", [far[0], *crowd, far[1]], [9, 1, 2, 3, 4, 5, 9])
    index = next(place for place, value in enumerate(crowd) if np.array_equal(value, chosen["w"]))
    assert chosen["count"] == index + 1 and chosen["w"].dtype == np.float64


def test_krum_among_two_is_refused() -> None:
    with pytest.raises(NotEnoughHospitalsError, match="compares 2 updates"):
        krum([np.zeros(2), np.ones(2)])


@pytest.mark.parametrize("strategy", ["median", "trimmed-mean", "krum"])
def test_one_poisoned_update_does_not_move_the_model_far(strategy: Any, tmp_path: Path) -> None:
    def poison(update: Update) -> Update:
        update.delta["conv.weight"][...] = 1e6
        return update

    def weights(strategy: Any, *, poisoned: bool) -> np.ndarray:
        members = [FakeHospital(name, 40) for name in "ABCD"]
        if poisoned:
            members.append(LyingHospital("E", 40, poison))
        else:
            members.append(FakeHospital("E", 40))
        folder = tmp_path / f"{strategy}-{poisoned}"
        settings = make_settings(rounds=2, strategy=strategy)
        return run_rounds(settings, initial_parameters(), LocalEngine(members), folder).parameters[
            "conv.weight"
        ]

    assert np.abs(weights("fedavg", poisoned=True)).max() > 1e4
    assert np.abs(weights(strategy, poisoned=True) - weights(strategy, poisoned=False)).max() < 2
