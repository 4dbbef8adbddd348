"""State to arrays and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedlens.errors import ModelError
from fedlens.models.network import Network
from fedlens.models.parameters import from_parameters, to_parameters
from fedlens.models.registry import build_network
from fedlens.study import ModelSettings


def _network(seed: int = 0) -> Network:
    return build_network(ModelSettings(), classes=2, channels=1, image_size=16, seed=seed)


_SHARED = _network()


def test_round_trip_between_networks() -> None:
    source, target = _network(1), _network(2).to(memory_format=torch.channels_last)
    parameters = to_parameters(source)
    from_parameters(target, parameters)
    for name, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], tensor)
        assert parameters[name].dtype == (np.int64 if name.endswith("num_batches_tracked") else np.float32)
        assert parameters[name].shape == tuple(tensor.shape)


def test_arrays_are_contiguous_copies() -> None:
    network = _network().to(memory_format=torch.channels_last)
    parameters = to_parameters(network)
    kept = {name: array.copy() for name, array in parameters.items()}
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(1)
    assert all(np.array_equal(parameters[name], kept[name]) for name in kept)
    assert all(array.flags.c_contiguous for array in parameters.values())


def test_channels_last_layout_survives_loading() -> None:
    network = _network().to(memory_format=torch.channels_last)
    from_parameters(network, to_parameters(_network(1)))
    weight = network.state_dict()["stem.0.0.weight"]
    wide = network.state_dict()["stages.0.first.0.weight"]
    assert weight.shape == (32, 1, 5, 5)
    assert wide.is_contiguous(memory_format=torch.channels_last)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(name for name in _SHARED.state_dict() if "num_batches" not in name)).flatmap(
        lambda name: st.tuples(
            st.just(name),
            hnp.arrays(
                np.float32,
                tuple(_SHARED.state_dict()[name].shape),
                elements=st.floats(width=32, allow_nan=False),
                fill=st.floats(width=32, allow_nan=False),
            ),
        )
    )
)
def test_any_float_comes_back_bit_for_bit(drawn: tuple[str, np.ndarray]) -> None:
    name, array = drawn
    array.setflags(write=False)
    from_parameters(_SHARED, {name: array}, strict=False)
    assert to_parameters(_SHARED)[name].tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stem.0.0.wieght": np.zeros(1, np.float32)}, "unknown stem.0.0.wieght"),
        ({"output.bias": np.zeros(3, np.float32)}, r"output.bias is torch.float32 \(3,\)"),
        ({"output.bias": np.zeros(2, np.float64)}, "output.bias is torch.float64"),
        ({"stem.0.1.num_batches_tracked": np.zeros(1, np.int64)}, "num_batches_tracked"),
    ],
)
def test_what_does_not_fit_leaves_the_network_unchanged(change: dict[str, np.ndarray], message: str) -> None:
    network = _network()
    before = to_parameters(network)
    wrong = {name: array + 1 for name, array in before.items()} | change
    with pytest.raises(ModelError, match=message):
        from_parameters(network, wrong)
    after = to_parameters(network)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_missing_names_are_refused_only_when_strict() -> None:
    network = _network()
    parameters = to_parameters(_network(1))
    removed = parameters.pop("output.bias")
    own = to_parameters(network)["output.bias"]
    with pytest.raises(ModelError, match=r"missing output\.bias"):
        from_parameters(network, parameters)
    from_parameters(network, parameters, strict=False)
    after = to_parameters(network)
    assert np.array_equal(after["output.bias"], own) and not np.array_equal(own, removed)
    assert np.array_equal(after["output.weight"], parameters["output.weight"])
