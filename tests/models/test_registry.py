"""Every network of the registry: shapes, the cut in two, seeds, and errors that help."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from fedlens.errors import SettingsError
from fedlens.models.fingerprint import fingerprint
from fedlens.models.network import ConvolutionalNetwork, Network, TokenNetwork
from fedlens.models.registry import build_network, network_names, preferred_precision
from fedlens.study import ModelSettings

_SMOOTH = {"GELU", "MemoryEfficientSwish", "SiLU", "Swish"}


def _build(name: str, *, classes: int = 3, channels: int = 1, size: int = 64, seed: int = 0) -> Network:
    return build_network(
        ModelSettings(name=name), classes=classes, channels=channels, image_size=size, seed=seed
    )


@pytest.mark.parametrize("name", network_names())
def test_forward_is_head_of_features(name: str) -> None:
    network = _build(name).eval()
    inputs = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        maps = network.features(inputs)
        kept = maps.clone()
        logits = network.head(maps)
    assert maps.ndim == 4 and min(maps.shape[2:]) >= 2
    assert torch.equal(maps, kept), "the head changed the maps"
    assert logits.shape == (2, 3) and logits.dtype == torch.float32
    assert torch.allclose(network(inputs), logits)
    assert (network.name, network.classes, network.channels, network.image_size) == (name, 3, 1, 64)


@pytest.mark.parametrize("name", network_names())
def test_features_come_in_two_steps_or_from_tokens(name: str) -> None:
    network = _build(name, size=96).eval()
    inputs = torch.randn(2, 1, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        if isinstance(network, ConvolutionalNetwork):
            early = network.early_features(inputs)
            kept = early.clone()
            late = network.late_features(early)
            assert torch.equal(early, kept), "the late features changed the early ones"
            assert torch.equal(late, network.features(inputs))
            assert early.shape[2:] == (2 * late.shape[2], 2 * late.shape[3])
            assert network.family == "convolutional" and network.layer != network.early_layer
        else:
            assert isinstance(network, TokenNetwork) and network.family == "tokens"
            logits, attention = network.attention(inputs)
            assert torch.equal(logits, network(inputs)) and len(attention) == 8
            for weights in attention:
                assert weights.shape == (2, 36, 36)
                assert torch.allclose(weights.sum(2), torch.ones(2, 36), atol=1e-5)


@pytest.mark.parametrize("name", network_names())
def test_rectified_networks_have_no_other_activation(name: str) -> None:
    network = _build(name)
    smooth = [module for module in network.modules() if type(module).__name__ in _SMOOTH]
    assert network.rectified == (not smooth)
    assert not network.rectified or any(isinstance(module, nn.ReLU) for module in network.modules())


@pytest.mark.parametrize("name", network_names())
def test_every_weight_gets_a_gradient(name: str) -> None:
    network = _build(name)
    inputs = torch.randn(4, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    network(inputs).logsumexp(1).sum().backward()
    idle = [key for key, weight in network.named_parameters() if weight.grad is None]
    assert idle == []


@pytest.mark.parametrize("name", network_names())
def test_logits_are_float32_under_bfloat16(name: str) -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = _build(name).eval()(torch.zeros(2, 1, 64, 64))
    assert logits.dtype == torch.float32


@pytest.mark.parametrize("name", network_names())
def test_seed_decides_the_weights_and_global_randomness_is_left_alone(name: str) -> None:
    torch.manual_seed(123)
    np.random.seed(123)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, again, other = _build(name, seed=7), _build(name, seed=7), _build(name, seed=8)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)
    states = [network.state_dict() for network in (first, again, other)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0])


@pytest.mark.parametrize("size", [16, 17, 33, 128])
@pytest.mark.parametrize("name", ["efdl-cnn", "efdl-cnn-fine"])
def test_efdl_cnn_takes_any_size_from_16(name: str, size: int) -> None:
    network = _build(name, channels=3, size=size)
    assert network(torch.zeros(2, 3, size, size)).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "weights", "side"), [("efdl-cnn", 1_198_755, 8), ("efdl-cnn-fine", 1_379_747, 16)]
)
def test_efdl_cnn_has_the_size_and_the_maps_it_is_documented_with(name: str, weights: int, side: int) -> None:
    network = _build(name, channels=3, size=128)
    assert sum(weight.numel() for weight in network.parameters()) == weights
    assert network.features(torch.zeros(2, 3, 128, 128)).shape[2:] == (side, side)


def test_dropout_setting_reaches_the_network() -> None:
    settings = ModelSettings(name="efdl-cnn", dropout=1.0)
    network = build_network(settings, classes=2, channels=1, image_size=16, seed=0)
    inputs = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network(inputs)[0], network(inputs)[1]), "with all dropped, only the bias is left"
    assert not torch.equal(network.eval()(inputs)[0], network(inputs)[1])


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"resnet81.*Did you mean 'resnet18'"):
        _build("resnet81")
    with pytest.raises(SettingsError, match="efdl-cnn"):
        preferred_precision("efdl_cnn")


@pytest.mark.parametrize(("name", "size"), [("vit", 100), ("densenet121", 16), ("efdl-cnn", 15)])
def test_unsuitable_sizes_are_refused_by_name(name: str, size: int) -> None:
    with pytest.raises(SettingsError, match=f"preprocess.size = {size}.*{name}"):
        _build(name, size=size)


def test_one_class_is_refused() -> None:
    with pytest.raises(SettingsError, match="two classes"):
        _build("efdl-cnn", classes=1)


def test_precisions() -> None:
    assert preferred_precision("efdl-cnn") == "bfloat16"
    assert preferred_precision("efficientnet-b0") == "float32"


def test_fingerprint_knows_architecture_and_not_weights() -> None:
    same = {fingerprint(_build("efdl-cnn", seed=seed)) for seed in (0, 1)}
    assert len(same) == 1
    others = {
        fingerprint(_build("efdl-cnn", classes=4)),
        fingerprint(_build("efdl-cnn", channels=3)),
        fingerprint(_build("efdl-cnn", size=32)),
        fingerprint(_build("resnet18")),
        fingerprint(_build("efdl-cnn").double()),
    }
    assert len(others | same) == 6


def test_the_default_network_does_not_wait_for_monai() -> None:
    code = (
        "import sys; from fedlens.models.registry import build_network;"
        "from fedlens.study import ModelSettings;"
        "build_network(ModelSettings(), classes=2, channels=1, image_size=16, seed=0);"
        "sys.exit('monai' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
