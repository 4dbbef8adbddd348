"""Grad-CAM and its relatives for the price of little more than one forward pass.

They differ in how they weigh maps by gradients. Every network is cut where its last spatial maps
are, so nothing is hooked: the costly half runs without gradients, and only the head is
differentiated, with respect to the maps alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from fedlens.explain.batch import MapBatch, explaining, map_batch
from fedlens.models.network import ConvolutionalNetwork, Network

_EARLY_GAIN = 2.0
"""Gamma of LayerCAM's scaling of early maps, as its authors set it."""


def grad_cam(network: Network, inputs: Tensor, targets: Tensor | None = None) -> MapBatch:
    """Grad-CAM (Selvaraju 2017; EFDL 3.5): ``relu(sum_k w_k A_k)``, ``w_k`` the mean gradient of map k.

    For a network over tokens, their grid before the last block takes the place of the maps.

    This and every other method runs the network in evaluation mode and hands it back in the mode it
    came in, after an exception too. Its parameters keep their gradients and flags as they were.

    Args:
        network: Any network of the registry.
        inputs: (N, channels, S, S) float32 on the network's device, as ``to_input`` makes them.
        targets: (N,) int64 class indices; the predicted class where None.

    Raises:
        ExplanationError: Inputs or targets of a wrong shape, a target that is no class, or logits
            that are not finite.
    """
    return _explained(network, inputs, targets, _by_mean_gradient)


def grad_cam_plus_plus(
    network: ConvolutionalNetwork, inputs: Tensor, targets: Tensor | None = None
) -> MapBatch:
    """Grad-CAM++ (Chattopadhay 2018, equations 10, 11 and 19, score exp(logit)).

    ``w_k = sum_ij alpha_kij relu(g_kij)`` with ``alpha = g^2 / (2 g^2 + g^3 sum_ab A_kab)``. Made for
    maps that are nowhere negative. Arguments, result and errors as ``grad_cam``.
    """
    return _explained(network, inputs, targets, _by_higher_derivatives)


def hires_cam(network: ConvolutionalNetwork, inputs: Tensor, targets: Tensor | None = None) -> MapBatch:
    """HiResCAM (Draelos 2020): ``relu(sum_k g_k A_k)``, place by place.

    Where the head is one linear layer after pooling, it adds up to the logit and equals Grad-CAM. Not
    for tokens: their layer norm is blind to a token's length, so that g_k A_k add up to almost nothing.
    Arguments, result and errors as ``grad_cam``.
    """
    return _explained(network, inputs, targets, _by_gradient)


def layer_cam(network: ConvolutionalNetwork, inputs: Tensor, targets: Tensor | None = None) -> MapBatch:
    """LayerCAM (Jiang 2021) at the last maps: ``relu(sum_k relu(g_k) A_k)``.

    Arguments, result and errors as ``grad_cam``.
    """
    return _explained(network, inputs, targets, _by_positive_gradient)


def layer_cam_two_stages(
    network: ConvolutionalNetwork, inputs: Tensor, targets: Tensor | None = None
) -> MapBatch:
    """LayerCAM over the last maps and those twice as fine, joined by their maximum (Jiang 2021, III-D).

    Early maps are raised by ``tanh(2 M / max M)`` before. Costs a backward pass through the last
    stage besides. Arguments, result and errors as ``grad_cam``.
    """
    with explaining(network, inputs, targets):
        early = network.early_features(inputs).requires_grad_()
        with torch.enable_grad():
            late = network.late_features(early)
            logits = network.head(late)
            targets = logits.argmax(dim=1) if targets is None else targets
            score = logits.gather(1, targets[:, None]).sum()
            early_gradient, late_gradient = torch.autograd.grad(score, (early, late))
        fine = map_batch(network, _by_positive_gradient(early, early_gradient), logits, targets).maps
        coarse = map_batch(network, _by_positive_gradient(late, late_gradient), logits, targets).maps
        return map_batch(network, torch.maximum(torch.tanh(_EARLY_GAIN * fine), coarse), logits, targets)


def _explained(
    network: Network, inputs: Tensor, targets: Tensor | None, weigh: Callable[[Tensor, Tensor], Tensor]
) -> MapBatch:
    with explaining(network, inputs, targets):
        maps = network.features(inputs).requires_grad_()
        with torch.enable_grad():
            logits = network.head(maps)
            targets = logits.argmax(dim=1) if targets is None else targets
            (gradient,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), maps)
        return map_batch(network, weigh(maps, gradient), logits, targets)


# Each takes maps (N, K, h, w) and the target's gradient with respect to them, and gives (N, h, w).


def _by_mean_gradient(maps: Tensor, gradient: Tensor) -> Tensor:
    return torch.einsum("nk,nkhw->nhw", gradient.mean(dim=(2, 3)), maps)


def _by_higher_derivatives(maps: Tensor, gradient: Tensor) -> Tensor:
    # alpha with g^2 divided out: squares and cubes of small gradients would vanish in float32.
    rising = F.relu(gradient)
    weights = rising / (2 + rising * maps.sum(dim=(2, 3), keepdim=True))
    return torch.einsum("nk,nkhw->nhw", weights.sum(dim=(2, 3)), maps)


def _by_gradient(maps: Tensor, gradient: Tensor) -> Tensor:
    return torch.einsum("nkhw,nkhw->nhw", gradient, maps)


def _by_positive_gradient(maps: Tensor, gradient: Tensor) -> Tensor:
    return torch.einsum("nkhw,nkhw->nhw", F.relu(gradient), maps)
