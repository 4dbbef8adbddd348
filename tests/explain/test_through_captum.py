"""What Captum makes comes back unchanged but for shape and scale."""

from __future__ import annotations

import pytest
import torch
from captum.attr import GuidedBackprop, GuidedGradCam, IntegratedGradients, Occlusion
from torch import Tensor, nn

from fedlens.explain.through_captum import (
    guided_backpropagation,
    guided_grad_cam,
    integrated_gradients,
    occlusion,
)
from fedlens.models.network import Network
from fedlens.models.registry import build_network
from fedlens.study import ModelSettings

_TARGETS = torch.tensor([2, 0, 1])


@pytest.fixture
def network() -> Network:
    found = build_network(ModelSettings(), classes=3, channels=3, image_size=32, seed=0)
    with torch.no_grad():
        found(_inputs())
    return found.eval()


def _inputs() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def _scaled(attributions: Tensor) -> Tensor:
    heat = attributions.detach().sum(1).relu()
    return heat / heat.amax(dim=(1, 2), keepdim=True)


def _agree(found: Tensor, attributions: Tensor) -> bool:
    return bool((found - _scaled(attributions)).abs().max() < 1e-5) and found.max() == 1


def test_integrated_gradients(network: Network) -> None:
    expected = IntegratedGradients(network).attribute(_inputs(), target=_TARGETS, n_steps=32)
    assert _agree(integrated_gradients(network, _inputs(), _TARGETS).maps, expected)
    gained = network(_inputs()) - network(torch.zeros(1, 3, 32, 32))
    difference = expected.sum(dim=(1, 2, 3)) - gained.gather(1, _TARGETS[:, None])[:, 0]
    assert difference.abs().max() < 0.1, "32 steps are too few to be complete"


def test_occlusion(network: Network) -> None:
    expected = Occlusion(network).attribute(
        _inputs(), target=_TARGETS, sliding_window_shapes=(3, 4, 4), strides=(3, 2, 2)
    )
    assert _agree(occlusion(network, _inputs(), _TARGETS).maps, expected)


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
def test_guided_backpropagation(network: Network) -> None:
    expected = GuidedBackprop(network).attribute(_inputs().requires_grad_(), target=_TARGETS)
    assert _agree(guided_backpropagation(network, _inputs(), _TARGETS).maps, expected.abs())


class _Whole(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network.features(inputs)


class _Hookable(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.maps, self.network = _Whole(network), network

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network.head(self.maps(inputs))


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
def test_guided_grad_cam(network: Network) -> None:
    hookable = _Hookable(network)
    expected = GuidedGradCam(hookable, hookable.maps).attribute(
        _inputs().requires_grad_(), target=_TARGETS, interpolate_mode="bilinear"
    )
    assert _agree(guided_grad_cam(network, _inputs(), _TARGETS).maps, expected)


@pytest.mark.parametrize("explain", [guided_backpropagation, guided_grad_cam, integrated_gradients])
def test_no_hook_or_flag_is_left_after_an_exception(
    explain: object, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    network.train()
    calls = []

    def fail_when_differentiated(maps: Tensor) -> Tensor:
        calls.append(maps.requires_grad)
        if maps.requires_grad:
            raise RuntimeError("out of memory")
        return torch.zeros(len(maps), 3)

    monkeypatch.setattr(network, "head", fail_when_differentiated)
    inputs = _inputs()
    with pytest.raises(RuntimeError, match="out of memory"):
        explain(network, inputs)  # type: ignore[operator]
    assert calls[-1] and network.training and not inputs.requires_grad
    for module in network.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks and not module._backward_hooks
