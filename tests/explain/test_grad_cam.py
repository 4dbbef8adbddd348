"""Grad-CAM and its relatives against the textbook, side effects, and whether it finds what it should."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.explain.planted import settle, squares
from torch import Tensor, nn
from torch.nn import functional as F

from fedlens.errors import ExplanationError
from fedlens.explain.batch import MapBatch
from fedlens.explain.grad_cam import (
    grad_cam,
    grad_cam_plus_plus,
    hires_cam,
    layer_cam,
    layer_cam_two_stages,
)
from fedlens.explain.methods import METHODS
from fedlens.models.network import Network
from fedlens.models.registry import build_network, network_names
from fedlens.study import ModelSettings

_SIZE = 64

_Formula = Callable[[Tensor, Tensor], Tensor]


def _network(name: str = "efdl-cnn", *, size: int = _SIZE) -> Network:
    """With running statistics that are not those of a fresh network."""
    network = build_network(ModelSettings(name=name), classes=3, channels=1, image_size=size, seed=0)
    settle(network, _inputs(size=size))
    return network.train()


def _inputs(count: int = 4, *, size: int = _SIZE) -> Tensor:
    return torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(count))


# The modules whose outputs are explained, named here again so that the comparison does not rest on
# where networks are cut.
_LATE_LAYER = {
    "efdl-cnn": "stages.4",
    "efdl-cnn-fine": "join",
    "densenet121": "rectifier",
    "resnet18": "body.7",
    "efficientnet-b0": "body.8",
    "vit": "blocks",
}
_EARLY_LAYER = {
    "efdl-cnn": "stages.2",
    "efdl-cnn-fine": "stages.0",
    "densenet121": "body.denseblock3",
    "resnet18": "body.6",
    "efficientnet-b0": "body.4.4",
}


def _selvaraju(maps: Tensor, gradient: Tensor) -> Tensor:
    """Equations 1 and 2."""
    return F.relu((gradient.mean(dim=(1, 2))[:, None, None] * maps).sum(0))


def _chattopadhay(maps: Tensor, gradient: Tensor) -> Tensor:
    """Equations 19 and 10, with the score exp(logit), whose derivatives are powers of the logit's."""
    denominator = 2 * gradient**2 + maps.sum(dim=(1, 2), keepdim=True) * gradient**3
    alpha = torch.where(gradient > 0, gradient**2 / denominator, 0.0)
    weights = (alpha * F.relu(gradient)).sum(dim=(1, 2))
    return F.relu((weights[:, None, None] * maps).sum(0))


def _draelos(maps: Tensor, gradient: Tensor) -> Tensor:
    return F.relu((maps * gradient).sum(0))


def _jiang(maps: Tensor, gradient: Tensor) -> Tensor:
    return F.relu((maps * F.relu(gradient)).sum(0))


def _scaled(heat: Tensor) -> Tensor:
    heat = F.interpolate(heat[None, None], (_SIZE, _SIZE), mode="bilinear")[0, 0]
    return heat / heat.max() if heat.max() > 0 else heat


def _textbook(network: Network, inputs: Tensor, targets: Tensor, layer: str, formula: _Formula) -> Tensor:
    """Hook, full backward pass, one image at a time."""
    caught: list[Tensor] = []

    def keep(module: nn.Module, given: object, maps: Tensor) -> None:
        maps.retain_grad()
        caught.append(maps)

    network.eval()
    hook = network.get_submodule(layer).register_forward_hook(keep)
    heats = []
    for image, target in zip(inputs, targets, strict=True):
        network(image[None])[0, target].backward()
        maps, gradient = caught[-1][0], caught[-1].grad
        assert gradient is not None
        gradient = gradient[0]
        if maps.ndim == 2:  # tokens
            side = round(len(maps) ** 0.5)
            maps, gradient = (part.T.reshape(-1, side, side) for part in (maps, gradient))
        heats.append(_scaled(formula(maps, gradient).detach()))
    hook.remove()
    network.zero_grad()
    return torch.stack(heats)


_FORMULAS: dict[str, tuple[_Formula, Callable[..., MapBatch]]] = {
    "grad-cam": (_selvaraju, grad_cam),
    "grad-cam++": (_chattopadhay, grad_cam_plus_plus),
    "hires-cam": (_draelos, hires_cam),
    "layer-cam": (_jiang, layer_cam),
}


@pytest.mark.parametrize("method", _FORMULAS)
@pytest.mark.parametrize("name", network_names())
def test_equals_the_textbook(name: str, method: str) -> None:
    # In double precision: in single, some processors' convolutions round a batch of three and a
    # single image apart by as much as is tolerated here.
    network, inputs = _network(name).double(), _inputs(3).double()
    if not METHODS[method].suitable(network):
        return
    targets = torch.tensor([0, 1, 2])
    formula, explain = _FORMULAS[method]
    expected = _textbook(network, inputs, targets, _LATE_LAYER[name], formula)
    result = explain(network, inputs, targets)
    assert expected.max() == 1, "a comparison of empty maps proves nothing"
    assert (result.maps - expected).abs().max() < 1e-5
    assert torch.equal(result.targets, targets)
    assert result.maps.shape == (3, _SIZE, _SIZE) and result.maps.dtype == torch.float32


@pytest.mark.parametrize("name", _EARLY_LAYER)
def test_two_stages_equal_the_textbook(name: str) -> None:
    network, inputs = _network(name).double(), _inputs(3).double()
    targets = torch.tensor([0, 1, 2])
    late = _textbook(network, inputs, targets, _LATE_LAYER[name], _jiang)
    early = _textbook(network, inputs, targets, _EARLY_LAYER[name], _jiang)
    assert network.early_features(inputs).shape[2] == 2 * network.features(inputs).shape[2]  # type: ignore[operator]
    expected = torch.maximum(torch.tanh(2 * early), late)
    expected /= expected.amax(dim=(1, 2), keepdim=True)
    result = layer_cam_two_stages(network, inputs, targets)  # type: ignore[arg-type]
    assert (result.maps - expected).abs().max() < 1e-5
    assert (result.maps - layer_cam(network, inputs, targets).maps).abs().max() > 0.01  # type: ignore[arg-type]


def test_one_linear_layer_makes_hires_cam_grad_cam() -> None:
    network, inputs = _network("resnet18"), _inputs()
    difference = grad_cam(network, inputs).maps - hires_cam(network, inputs).maps  # type: ignore[arg-type]
    assert difference.abs().max() < 1e-5


def test_predicted_class_is_the_default_target() -> None:
    network, inputs = _network(), _inputs()
    result = grad_cam(network, inputs)
    assert torch.equal(result.targets, network.eval()(inputs).argmax(1))
    assert torch.allclose(result.logits, network(inputs))
    assert not result.logits.requires_grad and not result.maps.requires_grad


def test_an_image_is_explained_alike_alone_and_in_company() -> None:
    network, inputs = _network(), _inputs(6)
    together = grad_cam(network, inputs, torch.ones(6, dtype=torch.int64)).maps
    for index in range(6):
        alone = grad_cam(network, inputs[index : index + 1], torch.ones(1, dtype=torch.int64)).maps[0]
        assert (alone - together[index]).abs().max() < 1e-5


def test_heat_is_where_the_evidence_is_and_not_inverted() -> None:
    network = _network()
    with torch.no_grad():
        # One map that is bright in a corner and one that is bright elsewhere; only the first counts.
        for weight in network.parameters():
            weight.zero_()
        network.hidden.weight[0, 0] = 1.0  # type: ignore[index]
        network.output.weight[2, 0] = 1.0  # type: ignore[index]
    maps = torch.zeros(1, 256, 4, 4)
    maps[0, 0, 0, 3] = 5.0
    maps[0, 1, 3, 0] = 9.0
    network.features = lambda inputs: maps.clone()  # type: ignore[method-assign]
    result = grad_cam(network, _inputs(1), torch.tensor([2]))
    row, column = divmod(int(result.maps[0].argmax()), _SIZE)
    assert row < _SIZE // 4 and column >= 3 * _SIZE // 4
    assert result.maps[0, row, column] == 1 and result.maps[0, -16:].max() == 0


def test_no_evidence_is_an_empty_map_and_says_so() -> None:
    network = _network()
    with torch.no_grad():
        network.output.weight.zero_()  # type: ignore[operator,union-attr]
    result = grad_cam(network, _inputs())
    assert result.empty.all() and not result.maps.any()
    assert not grad_cam(_network(), _inputs()).empty.all()


def _modes(network: Network) -> list[bool]:
    return [module.training for module in network.modules()]


def test_side_effects() -> None:
    network, inputs = _network(), _inputs()
    network.train()
    network.stem.eval()  # a frozen stem must stay frozen
    network.hidden.weight.requires_grad_(False)  # type: ignore[operator,union-attr]
    network.output.bias.grad = torch.ones(3)  # type: ignore[union-attr]
    modes = _modes(network)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    flags = [weight.requires_grad for weight in network.parameters()]
    kept, version = inputs.clone(), inputs._version
    grad_cam(network, inputs)
    assert _modes(network) == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert [weight.requires_grad for weight in network.parameters()] == flags
    gradients = {name for name, weight in network.named_parameters() if weight.grad is not None}
    assert gradients == {"output.bias"} and torch.equal(network.output.bias.grad, torch.ones(3))  # type: ignore[union-attr,arg-type]
    assert torch.equal(inputs, kept) and inputs._version == version and not inputs.requires_grad
    for module in network.modules():
        assert not module._forward_hooks and not module._backward_hooks and not module._forward_pre_hooks
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("broken", ["features", "head"])
def test_mode_is_restored_after_an_exception(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = _network()
    network.train()
    network.stem.eval()
    modes = _modes(network)

    def fail(tensor: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(network, broken, fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        grad_cam(network, _inputs())
    assert _modes(network) == modes and torch.is_grad_enabled()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_inside_the_callers_no_grad(mode: type) -> None:
    network, inputs = _network(), _inputs()
    expected = grad_cam(network, inputs).maps
    with mode():
        result = grad_cam(network, inputs * 1)
    assert torch.equal(result.maps, expected)


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (torch.zeros(2, 3, 64, 64), None, r"takes \(N, 1, 64, 64\)"),
        (torch.zeros(1, 64, 64), None, r"takes \(N, 1, 64, 64\)"),
        (torch.zeros(2, 1, 64, 64), torch.tensor([0]), "one|One int64"),
        (torch.zeros(2, 1, 64, 64), torch.tensor([0.0, 1.0]), "One int64"),
        (torch.zeros(2, 1, 64, 64), torch.tensor([0, 3]), r"classes are 0\.\.2"),
        (torch.zeros(2, 1, 64, 64), torch.tensor([-1, 0]), r"Targets -1\.\.0"),
        (torch.full((2, 1, 64, 64), torch.nan), None, "not finite"),
    ],
)
def test_what_cannot_be_explained(inputs: Tensor, targets: Tensor | None, message: str) -> None:
    with pytest.raises(ExplanationError, match=message):
        grad_cam(_network(), inputs, targets)


def test_finds_a_planted_square() -> None:
    network = build_network(ModelSettings(dropout=0.0), classes=2, channels=1, image_size=64, seed=0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for step in range(40):
        images, labels, _ = squares(16, seed=step)
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
    images, labels, masks = squares(64, seed=1000)
    result = grad_cam(network, images, labels)
    assert (result.logits.argmax(1) == labels).float().mean() > 0.95
    inside = sum(bool(masks[index].flatten()[result.maps[index].argmax()]) for index in range(32, 64))
    # A square covers 14 % of its image: blind maps would hit 4 or 5 of 32.
    assert inside >= 24
