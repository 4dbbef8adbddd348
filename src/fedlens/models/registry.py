"""Networks by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from fedlens.errors import SettingsError
from fedlens.models.efdl_cnn import EfdlCnn, FineEfdlCnn
from fedlens.models.monai_networks import DenseNet121, EfficientNetB0, ResNet18
from fedlens.models.network import Network
from fedlens.models.vision_transformer import PATCH, VisionTransformer
from fedlens.study import ModelSettings

Precision = Literal["bfloat16", "float32"]


@dataclass(frozen=True)
class _Entry:
    """How one network is built, and which input it can take.

    Attributes:
        build: The class.
        precision: Fastest for training on CPU.
        smallest: Smallest image side, pixels; below it the deepest maps vanish.
        multiple: The image side must be a multiple of this, pixels.
    """

    build: Callable[..., Network]
    precision: Precision
    smallest: int = 16
    multiple: int = 1


_NETWORKS = {
    "efdl-cnn": _Entry(EfdlCnn, "bfloat16"),
    "efdl-cnn-fine": _Entry(FineEfdlCnn, "bfloat16"),
    "densenet121": _Entry(DenseNet121, "bfloat16", smallest=32),
    "resnet18": _Entry(ResNet18, "bfloat16", smallest=32),
    "efficientnet-b0": _Entry(EfficientNetB0, "float32", smallest=32),
    "vit": _Entry(VisionTransformer, "bfloat16", smallest=2 * PATCH, multiple=PATCH),
}


def network_names() -> tuple[str, ...]:
    """Names that ``model.name`` may have."""
    return tuple(_NETWORKS)


def build_network(
    settings: ModelSettings, *, classes: int, channels: int, image_size: int, seed: int
) -> Network:
    """A fresh network on the CPU, in training mode; the same seed gives the same weights.

    The global random state is left as it was. ``settings.start`` is not read (see ``load_start``).

    Raises:
        SettingsError: Unknown name (with the nearest known one), or an image size, number of
            classes or channels that the network cannot have.
    """
    entry = _entry(settings.name)
    if classes < 2 or channels < 1:
        raise SettingsError(
            f"A network with {classes} classes and {channels} channels cannot be built.",
            why="It needs two classes or more, and one channel or more.",
            fix="Check data.classes and preprocess.channels.",
        )
    if image_size < entry.smallest or image_size % entry.multiple:
        multiple = f" and a multiple of {entry.multiple}" if entry.multiple > 1 else ""
        raise SettingsError(
            f"preprocess.size = {image_size} does not suit model.name = {settings.name!r}.",
            why=f"It takes images of {entry.smallest} pixels or more{multiple}.",
            fix="Set preprocess.size = 224, or choose another network.",
        )
    options = {"dropout": settings.dropout} if entry.build in (EfdlCnn, FineEfdlCnn) else {}
    # torch.manual_seed would also reseed the accelerators, which fork_rng is not asked to restore.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return entry.build(classes=classes, channels=channels, image_size=image_size, **options)


def preferred_precision(name: str) -> Precision:
    """The precision ``training.precision = "auto"`` takes for a network.

    Depthwise convolutions have no fast bfloat16 kernels on CPU; everything else has.

    Raises:
        SettingsError: Unknown name.
    """
    return _entry(name).precision


def _entry(name: str) -> _Entry:
    if name not in _NETWORKS:
        near = difflib.get_close_matches(name, _NETWORKS, n=1, cutoff=0.4)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise SettingsError(
            f"No network is named {name!r}.",
            fix=f"{hint}Set model.name to one of: {', '.join(_NETWORKS)}.",
        )
    return _NETWORKS[name]
