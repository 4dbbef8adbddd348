"""Model-parameter randomisation: verdicts, what is randomised, and what is left alone."""

from __future__ import annotations

import functools

import pytest
import torch
from tests.explain.planted import squares
from torch import Tensor
from torch.nn import functional as F

from fedlens.errors import ExplanationError
from fedlens.explain.batch import MapBatch
from fedlens.explain.grad_cam import grad_cam
from fedlens.explain.methods import METHODS, RECOMMENDED
from fedlens.explain.randomisation import LIMIT, layer_groups, randomisation_test, randomise
from fedlens.explain.through_captum import guided_backpropagation
from fedlens.models.network import Network
from fedlens.models.registry import build_network, network_names
from fedlens.study import ModelSettings


@functools.cache
def _trained() -> Network:
    """Learnt to tell squares from none; shared by tests, which leave it as it is."""
    network = build_network(ModelSettings(dropout=0.0), classes=2, channels=1, image_size=64, seed=0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for step in range(50):
        images, labels, _ = squares(16, seed=step)
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
    network.zero_grad()
    return network


def _phantoms(count: int = 12) -> tuple[Tensor, Tensor]:
    images, labels, _ = squares(2 * count, seed=1000)
    return images[count:], labels[count:]


def test_recommended_method_passes_and_guided_backpropagation_fails() -> None:
    images, labels = _phantoms()
    passing = randomisation_test(METHODS[RECOMMENDED], _trained(), images, targets=labels, draws=5)
    failing = randomisation_test(guided_backpropagation, _trained(), images, targets=labels, draws=2)
    assert not passing.broken and passing.surviving < 0.35
    assert failing.broken and failing.surviving > LIMIT + 0.1
    # As Adebayo et al. found: the class may be decided at random, and it changes next to nothing.
    assert failing.layers[:2] == ("output", "hidden") and failing.cascading[1] > 0.7
    assert passing.cascading[1] < 0.5
    # Groups far from the output hardly matter alone; those near it decide.
    assert passing.independent[0] < passing.independent[-1]
    described = failing.description()
    assert described["broken"] and [layer["layer"] for layer in described["layers"]] == list(failing.layers)


def test_a_map_of_the_image_alone_is_broken_and_one_of_the_weights_alone_is_not() -> None:
    images, labels = _phantoms(4)

    def image_alone(network: Network, inputs: Tensor, targets: Tensor | None) -> MapBatch:
        assert targets is not None
        maps = inputs[:, 0] - inputs.min()
        return MapBatch(maps / maps.max(), torch.zeros(len(inputs), 2), targets, torch.zeros(len(inputs)) > 0)

    def weights_alone(network: Network, inputs: Tensor, targets: Tensor | None) -> MapBatch:
        assert targets is not None
        seed = int(1e6 * float(network.output.weight.detach().abs().sum()))  # type: ignore[union-attr,operator,arg-type]
        maps = torch.rand(inputs[:, 0].shape, generator=torch.Generator().manual_seed(seed))
        return MapBatch(maps, torch.zeros(len(inputs), 2), targets, torch.zeros(len(inputs)) > 0)

    blind = randomisation_test(image_alone, _trained(), images, targets=labels, draws=1)
    assert blind.broken and blind.surviving == pytest.approx(1)
    assert blind.independent == pytest.approx([1.0] * len(blind.layers))
    seeing = randomisation_test(weights_alone, _trained(), images, targets=labels, draws=1)
    assert not seeing.broken and abs(seeing.surviving) < 0.1


def test_network_inputs_and_random_state_are_left_alone() -> None:
    network = build_network(ModelSettings(), classes=2, channels=1, image_size=32, seed=0)
    images = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    kept, random = images.clone(), torch.get_rng_state()
    first = randomisation_test(grad_cam, network, images, draws=1)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert network.training and torch.equal(images, kept) and torch.equal(torch.get_rng_state(), random)
    assert first == randomisation_test(grad_cam, network, images, draws=1), "the same seed gives the same"
    assert first != randomisation_test(grad_cam, network, images, draws=1, seed=7)


@pytest.mark.parametrize("name", network_names())
def test_every_weight_belongs_to_one_group_and_is_redrawn(name: str) -> None:
    network = build_network(ModelSettings(name=name), classes=3, channels=1, image_size=32, seed=0)
    groups = layer_groups(network)
    before = {key: weight.clone() for key, weight in network.named_parameters()}
    for key in before:
        assert sum(key.startswith(f"{group}.") for group in groups) == 1, key
    assert groups[0] == "output" and 5 <= len(groups) <= 30
    randomise(network, groups[0], seed=3)
    for key, weight in network.named_parameters():
        assert torch.equal(weight, before[key]) != key.startswith("output.")
    for group in groups[1:]:
        randomise(network, group, seed=3)
    same = [key for key, weight in network.named_parameters() if torch.equal(weight, before[key])]
    # Norms start from the same ones and zeros each time, and an untrained network still has them.
    assert all(before[key].unique().numel() == 1 for key in same)
    assert all(torch.isfinite(weight).all() for weight in network.parameters())


def test_what_cannot_be_tested() -> None:
    network = build_network(ModelSettings(), classes=2, channels=1, image_size=32, seed=0)
    images = torch.zeros(3, 1, 32, 32)
    with pytest.raises(ExplanationError, match="1 images"):
        randomisation_test(grad_cam, network, images[:1])
    with pytest.raises(ExplanationError, match="0 draws"):
        randomisation_test(grad_cam, network, images, draws=0)
    with torch.no_grad():
        network.output.weight.zero_()  # type: ignore[union-attr,operator]
    with pytest.raises(ExplanationError, match="nothing to compare"):
        randomisation_test(grad_cam, network, images)


@pytest.mark.full
@pytest.mark.parametrize("method", ["hires-cam", "integrated-gradients"])
def test_other_methods_that_pass(method: str) -> None:
    images, labels = _phantoms(6)
    assert not randomisation_test(METHODS[method], _trained(), images, targets=labels, draws=3).broken
