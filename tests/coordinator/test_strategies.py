from __future__ import annotations

import numpy as np
import pytest
from tests.coordinator.fakes import initial_parameters, make_settings

from fedlens.coordinator.strategies import make_strategy
from fedlens.errors import RoundError
from fedlens.protocol.messages import Parameters


def means(seed: int) -> Parameters:
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(size=array.shape) if array.dtype == np.float32 else np.array(40 + seed)
        for name, array in initial_parameters().items()
    }


def run(strategy_name: str, **federation: float) -> tuple[list[Parameters], list[Parameters]]:
    strategy = make_strategy(make_settings(strategy=strategy_name, **federation))
    parameters = initial_parameters()
    state = strategy.start(parameters)
    steps, states = [parameters], [state]
    for seed in range(3):
        parameters, state = strategy.update(parameters, means(seed), state)
        steps.append(parameters)
        states.append(state)
    return steps, states


def test_fedavg_adds_the_mean() -> None:
    steps, states = run("fedavg", server_learning_rate=0.1)
    for seed in range(3):
        expected = (steps[seed]["conv.weight"] + means(seed)["conv.weight"]).astype(np.float32)
        np.testing.assert_array_equal(steps[seed + 1]["conv.weight"], expected)
    assert states == [{}] * 4


def test_fedavgm_by_hand() -> None:
    steps, _ = run("fedavgm", server_learning_rate=0.5, server_momentum=0.9)
    weight, velocity = steps[0]["conv.weight"].astype(np.float64), np.zeros((3, 2))
    for seed in range(3):
        velocity = 0.9 * velocity + means(seed)["conv.weight"]
        weight = weight + 0.5 * velocity
        np.testing.assert_allclose(steps[seed + 1]["conv.weight"], weight, rtol=1e-5, atol=1e-6)


def test_fedadam_by_hand() -> None:
    steps, states = run("fedadam", server_learning_rate=0.05, server_momentum=0.8)
    weight, first = steps[0]["conv.weight"].astype(np.float64), np.zeros((3, 2))
    second = np.full((3, 2), 1e-6)
    for seed in range(3):
        mean = means(seed)["conv.weight"]
        first = 0.8 * first + 0.2 * mean
        second = 0.99 * second + 0.01 * mean * mean
        weight = weight + 0.05 * first / (np.sqrt(second) + 1e-3)
        np.testing.assert_allclose(steps[seed + 1]["conv.weight"], weight, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(states[seed + 1]["second/conv.weight"], second, rtol=1e-5)


@pytest.mark.parametrize("name", ["fedavg", "fedprox", "fedavgm", "fedadam"])
def test_buffers_have_their_own_rule_under_every_strategy(name: str) -> None:
    steps, states = run(name, server_learning_rate=0.3)
    for seed in range(3):
        expected = (steps[seed]["norm.running_var"] + means(seed)["norm.running_var"]).astype(np.float32)
        np.testing.assert_array_equal(steps[seed + 1]["norm.running_var"], expected)
        assert steps[seed + 1]["norm.count"] == 40 + seed
        assert steps[seed + 1]["norm.count"].dtype == np.int64
    assert not any("running_var" in key or "count" in key for key in states[0])


@pytest.mark.parametrize("name", ["fedavg", "fedavgm", "fedadam"])
def test_arguments_stay_as_they_were(name: str) -> None:
    strategy = make_strategy(make_settings(strategy=name))
    parameters, mean = initial_parameters(), means(1)
    state = strategy.start(parameters)
    strategy.update(parameters, mean, state)
    for given, expected in (
        (parameters, initial_parameters()),
        (mean, means(1)),
        (state, strategy.start(parameters)),
    ):
        assert given.keys() == expected.keys()
        for key, array in expected.items():
            np.testing.assert_array_equal(given[key], array)


def test_only_fedprox_pulls_and_only_fedbn_keeps_home() -> None:
    for name in ("fedavg", "fedprox", "fedbn", "fedavgm", "fedadam"):
        strategy = make_strategy(make_settings(strategy=name, proximal_mu=0.3))
        assert strategy.proximal_mu == (0.3 if name == "fedprox" else 0.0)
        assert strategy.personal == (
            ("norm.count", "norm.running_var", "norm.weight") if name == "fedbn" else ()
        )


def test_dtypes_and_shapes_are_kept() -> None:
    steps, states = run("fedadam")
    for name, array in initial_parameters().items():
        assert steps[-1][name].dtype == array.dtype and steps[-1][name].shape == array.shape
    assert {array.dtype for array in states[-1].values()} == {np.dtype(np.float32)}


def test_a_step_beyond_float32_is_refused() -> None:
    strategy = make_strategy(make_settings(strategy="fedavgm", server_learning_rate=1e30))
    parameters = initial_parameters()
    mean = {**means(0), "conv.weight": np.full((3, 2), 1e20)}
    with pytest.raises(RoundError, match=r"conv\.weight is no longer finite"):
        strategy.update(parameters, mean, strategy.start(parameters))
