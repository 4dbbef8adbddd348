"""A small explained batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fedlens.explain.grad_cam import grad_cam
from fedlens.explain.quality import Explained
from fedlens.models.network import Network
from fedlens.models.registry import build_network
from fedlens.study import ModelSettings

SIZE = 32


def trained_network() -> Network:
    """Told apart by brightness of one quarter, so that outputs hang on places."""
    network = build_network(ModelSettings(dropout=0.0), classes=2, channels=1, image_size=SIZE, seed=0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for step in range(30):
        images, labels = batch(16, seed=step)
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
    return network.eval().requires_grad_(False)


def batch(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise; images of class 1 have a bright square of 12 pixels in the upper left."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(count, 1, SIZE, SIZE, generator=generator)
    labels = torch.arange(count) % 2
    images[labels == 1, 0, 2:14, 2:14] += 2.0
    return images, labels


def explain_with(network: Network, inputs: Tensor, targets: Tensor) -> Tensor:
    return grad_cam(network, inputs, targets).maps


@pytest.fixture(scope="session")
def network() -> Network:
    return trained_network()


@pytest.fixture(scope="session")
def explained(network: Network) -> Explained:
    inputs, targets = batch(6, seed=99)
    masks = torch.zeros(6, SIZE, SIZE, dtype=torch.bool)
    masks[targets == 1, 2:14, 2:14] = True

    def explain(images: Tensor, classes: Tensor) -> Tensor:
        return explain_with(network, images, classes)

    return Explained(network, explain, inputs, targets, explain(inputs, targets), masks)
