"""Grad-CAM (Selvaraju 2017; EFDL 3.5) for the price of little more than one forward pass.

Every network is cut where its last spatial maps are, so nothing is hooked: the costly half runs
without gradients, and only the head is differentiated, with respect to the maps alone.
"""

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
class CamResult:
    """Grad-CAM of a batch, on the inputs' device.

    Attributes:
        maps: (N, S, S) float32, 0..1; 1 is the hottest place of its image and 0 means no evidence.
        logits: (N, classes) float32, of the same pass.
        targets: (N,) int64, the class each map speaks for.
        empty: (N,) bool; nothing in the image raised the target's logit, so the map is all zero.
    """

    maps: Tensor
    logits: Tensor
    targets: Tensor
    empty: Tensor


def grad_cam(network: Network, inputs: Tensor, targets: Tensor | None = None) -> CamResult:
    """Where the network looked for a class: ``relu(sum_k w_k A_k)``, ``w_k`` the mean gradient of map k.

    The network runs in evaluation mode and is handed back in the mode it came in, after an
    exception too. Its parameters keep their gradients and flags as they were.

    Args:
        network: Any network of the registry.
        inputs: (N, channels, S, S) float32 on the network's device, as ``to_input`` makes them.
        targets: (N,) int64 class indices; the predicted class where None.

    Raises:
        ExplanationError: Inputs or targets of a wrong shape, a target that is no class, or logits
            that are not finite.
    """
    _check(network, inputs, targets)
    # Without the first, a caller's inference mode would forbid the head's gradient.
    with torch.inference_mode(False), evaluating(network):
        with torch.no_grad():
            maps = network.features(inputs)
        with torch.enable_grad():
            maps.requires_grad_()
            logits = network.head(maps)
            if targets is None:
                targets = logits.argmax(dim=1)
            (gradient,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), maps)
    logits = logits.detach()
    if not torch.isfinite(logits).all():
        raise ExplanationError(
            f"{network.name} gives outputs that are not finite.",
            fix="Use another checkpoint; this one's training diverged.",
        )
    weights = gradient.mean(dim=(2, 3))
    heat = F.relu(torch.einsum("nk,nkhw->nhw", weights, maps.detach())).float()
    heat = F.interpolate(heat[:, None], inputs.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    hottest = heat.amax(dim=(1, 2), keepdim=True)
    # Where nothing is hot, dividing by 1 keeps the zeros.
    heat /= torch.where(hottest > 0, hottest, 1.0)
    return CamResult(heat, logits, targets, hottest.flatten() == 0)


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
