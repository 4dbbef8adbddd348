"""Eigen-CAM, Score-CAM and attention rollout against their formulas, written out."""

from __future__ import annotations

import pytest
import torch
from tests.explain.planted import settle
from torch import Tensor
from torch.nn import functional as F

from fedlens.explain.gradient_free import attention_rollout, eigen_cam, score_cam
from fedlens.models.efdl_cnn import EfdlCnn
from fedlens.models.registry import build_network
from fedlens.models.vision_transformer import VisionTransformer
from fedlens.study import ModelSettings

_SIZE = 64


def _inputs(count: int = 3) -> Tensor:
    return torch.randn(count, 1, _SIZE, _SIZE, generator=torch.Generator().manual_seed(count)).double()


@pytest.fixture
def cnn() -> EfdlCnn:
    network = build_network(ModelSettings(), classes=3, channels=1, image_size=_SIZE, seed=0)
    assert isinstance(network, EfdlCnn)
    settle(network.double(), _inputs())
    return network


@pytest.fixture
def vit() -> VisionTransformer:
    network = build_network(ModelSettings(name="vit"), classes=3, channels=1, image_size=_SIZE, seed=0)
    assert isinstance(network, VisionTransformer)
    with torch.no_grad():
        for block in (*network.blocks, network.last_block):
            block.attn.qkv.weight.mul_(5)  # type: ignore[union-attr,operator] # attention that is not uniform
    return network.double().eval()


def _scaled(heat: Tensor) -> Tensor:
    heat = F.interpolate(heat.relu()[None, None], (_SIZE, _SIZE), mode="bilinear")[0, 0]
    return heat / heat.max()


def test_eigen_cam_is_the_first_principal_component(cnn: EfdlCnn) -> None:
    inputs = _inputs()
    result = eigen_cam(cnn, inputs)
    with torch.no_grad():
        for maps, found in zip(cnn.features(inputs), result.maps, strict=True):
            places = maps.flatten(1).T  # (places, maps)
            projected = places @ torch.linalg.svd(places, full_matrices=False).Vh[0]
            expected = _scaled((projected * projected.sum().sign()).reshape(maps.shape[1:]))
            assert (found - expected).abs().max() < 1e-5
    other = eigen_cam(cnn, inputs, torch.tensor([0, 1, 2]))
    assert torch.equal(other.maps, result.maps) and other.targets.tolist() == [0, 1, 2]


def test_score_cam_weighs_maps_by_what_the_masked_image_says(cnn: EfdlCnn) -> None:
    inputs, targets = _inputs(2), torch.tensor([2, 0])
    with torch.no_grad():
        for part in (cnn.stages[4].first, cnn.stages[4].second):  # type: ignore[union-attr]
            part[1].weight[:5] = 0  # type: ignore[index,union-attr,operator]
    result = score_cam(cnn, inputs, targets)
    with torch.no_grad():
        for image, target, found in zip(inputs, targets, result.maps, strict=True):
            maps = cnn.features(image[None])[0]
            scores = []
            for single in maps:
                if single.min() == single.max():
                    scores.append(torch.tensor(-torch.inf))
                    continue
                mask = (single - single.min()) / (single.max() - single.min())
                mask = F.interpolate(mask[None, None], (_SIZE, _SIZE), mode="bilinear")
                scores.append(cnn(image[None] * mask)[0, target])
            assert scores[:5] == [-torch.inf] * 5
            weights = torch.stack(scores).double().softmax(0)
            expected = _scaled((weights[:, None, None] * maps).sum(0))
            assert (found - expected).abs().max() < 1e-5
    assert torch.allclose(result.logits.double(), cnn(inputs).double(), atol=1e-5)


def test_score_cam_of_maps_that_say_nothing_is_empty(cnn: EfdlCnn) -> None:
    cnn.late_features = lambda maps: torch.ones(len(maps), 256, 4, 4).double()  # type: ignore[method-assign]
    result = score_cam(cnn, _inputs(1))
    assert result.empty.all() and not result.maps.any()


def test_rollout_multiplies_attention_and_residual_paths(vit: VisionTransformer) -> None:
    inputs = _inputs()
    seen: list[Tensor] = []
    with torch.no_grad():
        tokens = vit.embedding(inputs)
        for block in (*vit.blocks, vit.last_block):
            attn = block.attn
            query, key, _ = attn.qkv(block.norm1(tokens)).unflatten(2, (3, attn.num_heads, -1)).unbind(2)  # type: ignore[operator,union-attr]
            weights = torch.einsum("bxhd,byhd->bhxy", query, key) * attn.scale  # type: ignore[union-attr,operator]
            seen.append(weights.softmax(-1).mean(1))
            tokens = block(tokens)
    rolled = torch.eye(16).double().expand(3, 16, 16)
    for weights in seen:
        rolled = (weights + torch.eye(16)) / 2 @ rolled
    heat = rolled.mean(1)
    heat = (heat - heat.amin(1, keepdim=True)).reshape(3, 4, 4)
    result = attention_rollout(vit, inputs)
    for found, expected in zip(result.maps, heat, strict=True):
        assert (found - _scaled(expected)).abs().max() < 1e-5
    assert torch.allclose(result.logits, vit(inputs))


def test_attention_is_handed_back_switched_off_after_an_exception_too(
    vit: VisionTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(tokens: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(vit.blocks[3].mlp, "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        attention_rollout(vit, _inputs())
    for block in (*vit.blocks, vit.last_block):
        assert not block.attn.save_attn and not block.attn.att_mat.numel()  # type: ignore[union-attr,operator]
