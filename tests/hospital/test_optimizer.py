from __future__ import annotations

import pytest
import torch

from fedlens.hospital.optimizer import Optimizer, as_matrix, hidden_matrices
from fedlens.models.registry import build_network, network_names
from fedlens.study import ModelSettings, TrainingSettings

from .conftest import make_network

MUON = TrainingSettings(optimizer="muon", learning_rate=0.01, weight_decay=0.1)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_matrix_shares_its_weights_memory_and_takes_gradients_of_any_layout(
    layout: torch.memory_format,
) -> None:
    weight = torch.randn(5, 3, 2, 4).to(memory_format=layout)
    gradient = torch.randn(5, 3, 2, 4)
    assert as_matrix(weight, weight).data_ptr() == weight.data_ptr()
    for other in (gradient, gradient.to(memory_format=torch.channels_last)):
        # Column by column the gradient must meet the weight that it belongs to.
        pairs = zip(as_matrix(weight, weight).flatten(), as_matrix(other, weight).flatten(), strict=True)
        expected = dict(zip(weight.flatten().tolist(), gradient.flatten().tolist(), strict=True))
        assert all(expected[float(value)] == float(slope) for value, slope in pairs)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_muon_steps_along_orthogonal_directions(layout: torch.memory_format) -> None:
    network = make_network().to(memory_format=layout)  # type: ignore[call-overload]
    weights = hidden_matrices(list(network.parameters()))
    before = [weight.detach().clone() for weight in weights]
    optimizer = Optimizer(network, TrainingSettings(optimizer="muon", learning_rate=0.01))
    for weight in network.parameters():
        weight.grad = torch.randn(weight.shape)
    optimizer.step()
    for old, weight in zip(before, weights, strict=True):
        moved = as_matrix(weight.detach() - old, weight)
        values = torch.linalg.svdvals(moved.double())
        # Newton-Schulz leaves singular values between about 0.7 and 1.2 of the largest common one.
        assert values.max() / values.median() < 2
        assert moved.square().mean().sqrt() == pytest.approx(0.2 * 0.01, rel=0.3)


def test_first_and_last_layer_norms_and_depthwise_filters_stay_with_adam() -> None:
    for name in network_names():
        network = build_network(ModelSettings(name=name), classes=3, channels=3, image_size=64, seed=0)
        names = {id(weight): key for key, weight in network.named_parameters()}
        chosen = [names[id(weight)] for weight in hidden_matrices(list(network.parameters()))]
        assert chosen and not any(key.startswith("output") for key in chosen)
        shapes = [network.get_parameter(key).shape for key in chosen]
        assert all(shape[1] > 3 or name == "vit" for shape in shapes), name


def test_one_rate_is_set_everywhere_and_gradients_are_forgotten() -> None:
    network = make_network()
    optimizer = Optimizer(network, MUON)
    network(torch.randn(4, 3, 32, 32)).sum().backward()
    optimizer.set_learning_rate(0.0)
    before = [weight.detach().clone() for weight in network.parameters()]
    optimizer.step()
    assert all(torch.equal(old, weight) for old, weight in zip(before, network.parameters(), strict=True))
    optimizer.zero_grad()
    assert all(weight.grad is None for weight in network.parameters())
