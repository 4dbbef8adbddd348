"""What every explanation method shares: checks, evaluation mode, and maps of one scale."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fedlens.errors import ExplanationError
from fedlens.models.network import Network


@dataclass(frozen=True, eq=False)
class MapBatch:
    """Explanations of a batch, on the inputs' device.

    Attributes:
        maps: (N, S, S) float32, 0..1; 1 is the hottest place of its image and 0 means no evidence.
        logits: (N, classes) float32, of the same network and images.
        targets: (N,) int64, the class each map speaks for.
        empty: (N,) bool; nothing in the image spoke for the target, so the map is all zero.
    """

    maps: Tensor
    logits: Tensor
    targets: Tensor
    empty: Tensor


@contextlib.contextmanager
def evaluating(network: Network) -> Iterator[None]:
    """Evaluation mode inside; afterwards every module is in the mode it was in before."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextlib.contextmanager
def explaining(network: Network, inputs: Tensor, targets: Tensor | None) -> Iterator[None]:
    """Check what is to be explained; evaluation mode inside, gradients off unless asked for.

    Raises:
        ExplanationError: Inputs or targets of a wrong shape, or a target that is no class.
    """
    _check(network, inputs, targets)
    # Without the first, a caller's inference mode would forbid the gradients asked for inside.
    with torch.inference_mode(False), torch.no_grad(), evaluating(network):
        yield


def map_batch(network: Network, heat: Tensor, logits: Tensor, targets: Tensor) -> MapBatch:
    """Keep the positive heat, bring it to the image's size and divide it by its hottest place.

    Args:
        network: Whose explanation it is.
        heat: (N, h, w) of any scale; what is negative speaks against the target, or for nothing.
        logits: (N, classes).
        targets: (N,) int64.

    Raises:
        ExplanationError: Logits that are not finite.
    """
    if not torch.isfinite(logits).all():
        raise ExplanationError(
            f"{network.name} gives outputs that are not finite.",
            fix="Use another checkpoint; this one's training diverged.",
        )
    size = (network.image_size, network.image_size)
    heat = F.relu(heat.detach()).float()
    if heat.shape[1:] != size:
        heat = F.interpolate(heat[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    hottest = heat.amax(dim=(1, 2), keepdim=True)
    # Where nothing is hot, dividing by 1 keeps the zeros.
    heat = heat / torch.where(hottest > 0, hottest, 1.0)
    return MapBatch(heat, logits.detach().float(), targets, hottest.flatten() == 0)


def _check(network: Network, inputs: Tensor, targets: Tensor | None) -> None:
    side = network.image_size
    if inputs.ndim != 4 or inputs.shape[1:] != (network.channels, side, side):
        raise ExplanationError(
            f"Inputs of shape {tuple(inputs.shape)} do not suit {network.name}.",
            why=f"It takes (N, {network.channels}, {side}, {side}).",
            fix="Prepare the images with the checkpoint's own preprocessing.",
        )
    if targets is None:
        return
    if targets.shape != inputs.shape[:1] or targets.dtype != torch.int64:
        raise ExplanationError(
            f"Targets are {targets.dtype} of shape {tuple(targets.shape)}.",
            why=f"One int64 class index is needed for each of the {len(inputs)} inputs.",
        )
    if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < network.classes:
        raise ExplanationError(
            f"Targets {int(targets.min())}..{int(targets.max())} are no classes of this network.",
            why=f"Its classes are 0..{network.classes - 1}.",
        )
