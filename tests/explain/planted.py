"""Bright squares planted in dark noise, and networks of the registry that react to them."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedlens.models.network import Network
from fedlens.models.registry import build_network
from fedlens.models.vision_transformer import PATCH, VisionTransformer
from fedlens.study import ModelSettings


def squares(count: int, seed: int, *, size: int = 64, side: int = 24) -> tuple[Tensor, Tensor, Tensor]:
    """Noise with, in the second half of the images, one bright square.

    Returns:
        Images float32 (count, 1, size, size), labels int64 (count,), and bool masks of the squares,
        shaped (count, size, size).
    """
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(count, 1, size, size, generator=generator) - 1
    masks = torch.zeros(count, size, size, dtype=torch.bool)
    corners = torch.randint(0, size - side, (count, 2), generator=generator).tolist()
    for mask, (row, column) in list(zip(masks, corners, strict=True))[count // 2 :]:
        mask[row : row + side, column : column + side] = True
    images[:, 0] += 2.0 * masks
    return images, (torch.arange(count) >= count // 2).long(), masks


def settle(network: Network, images: Tensor) -> None:
    """Give batch norms the statistics of these images; the network is in evaluation mode afterwards.

    Nothing else is in training mode meanwhile, so that no chance enters.
    """
    norms = [module for module in network.eval().modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = None  # the mean over all batches seen, of which this is the only one
    with torch.no_grad():
        network(images)
    network.eval()


SIZE, SIDE = 128, 48


@functools.cache
def reacting_network(name: str) -> Network:
    """A network whose random features stay, and whose head has learnt to tell squares from none.

    What the last maps of a random network hold is still where it was in the image, so its explanations
    must point there; training all weights would take minutes. Random attention heeds nothing, so a
    transformer is told to heed bright tokens. Shared by tests: it must not be changed.
    """
    settings = ModelSettings(name=name, dropout=0.0)
    network = build_network(settings, classes=2, channels=1, image_size=SIZE, seed=0)
    images, labels, masks = squares(64, 0, size=SIZE, side=SIDE)
    with torch.no_grad():
        if isinstance(network, VisionTransformer):
            _heed_bright_tokens(network, images, masks)
        settle(network, images)
        maps = network.features(images)
    steps, rate = (15, 1e-3) if name == "vit" else (60, 1e-2)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(network.head(maps), labels).backward()
        optimizer.step()
    network.zero_grad()
    with torch.no_grad():
        assert (network.head(maps).argmax(1) == labels).float().mean() > 0.9, "it learnt nothing"
    return network


def _heed_bright_tokens(network: VisionTransformer, images: Tensor, masks: Tensor) -> None:
    """Make every query constant, and every key grow with what sets bright tokens apart."""
    bright = F.avg_pool2d(masks[:, None].float(), PATCH).flatten(1) > 0.99
    dark = F.avg_pool2d(masks[:, None].float(), PATCH).flatten(1) == 0
    tokens = network.embedding(images)
    for block in (*network.blocks, network.last_block):
        normed = block.norm1(tokens)
        direction = F.normalize(normed[bright].mean(0) - normed[dark].mean(0), dim=0)
        weights = block.attn
        width, head = tokens.shape[2], weights.dim_head
        query, key = weights.qkv.weight.view(3, width, width)[:2]
        query_bias, key_bias = weights.qkv.bias.view(3, width)[:2]
        for part in (query, key, query_bias, key_bias):
            part.zero_()
        query_bias[::head] = 1.0
        key[::head] = 20 * direction
        tokens = block(tokens)
