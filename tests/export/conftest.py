"""A small network with every layer's own statistics, and its exports, made once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fedlens.export.contract import EdgeContract
from fedlens.export.quantise import quantise
from fedlens.export.to_onnx import edge_contract, to_onnx
from fedlens.imaging.preprocess import digest
from fedlens.models.checkpoint import Contract
from fedlens.models.fingerprint import fingerprint
from fedlens.models.network import Network
from fedlens.models.registry import build_network
from fedlens.study import ModelSettings, PreprocessSettings

CLASSES = ("benign", "malignant", "other")
SIDE = 32


@dataclass(frozen=True)
class Made:
    """A network in torch and as files."""

    network: Network
    contract: EdgeContract
    model: Any
    float32: Path
    int8: Path


def made_network(name: str, *, side: int = SIDE) -> tuple[Network, Contract]:
    """A network whose batch norms are not those of a fresh one, or folding them would show nothing."""
    settings = PreprocessSettings(size=side)
    model = ModelSettings(name=name)
    network = build_network(model, classes=len(CLASSES), channels=3, image_size=side, seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2, generator=generator)  # type: ignore[union-attr]
                module.running_var.uniform_(0.7, 1.5, generator=generator)  # type: ignore[union-attr]
                module.bias.normal_(0, 0.1, generator=generator)
    contract = Contract(
        model=model,
        classes=CLASSES,
        preprocess=settings,
        preprocess_digest=digest(settings),
        fingerprint=fingerprint(network),
        weights_sha256="0" * 64,
    )
    return network, contract


def made_pixels(images: int, *, side: int = SIDE, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Smooth noise, uint8 (N, S, S, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (images, 8, 8, 3))
    rows = np.arange(side) * 8 // side
    return coarse[:, rows][:, :, rows].astype(np.uint8)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("export")
    network, contract = made_network("efdl-cnn-fine")
    promised = edge_contract(contract, modalities=["mri"], temperature=1.7)
    model = to_onnx(network, promised)
    small = quantise(model, made_pixels(40, seed=9), promised)
    for name, content in (("float32", model), ("int8", small)):
        (folder / f"{name}.onnx").write_bytes(content.SerializeToString())
    return Made(network, promised, model, folder / "float32.onnx", folder / "int8.onnx")
