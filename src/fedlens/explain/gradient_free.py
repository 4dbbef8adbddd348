"""Explanations that need no gradient: Eigen-CAM, Score-CAM and attention rollout."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fedlens.explain.batch import MapBatch, explaining, map_batch
from fedlens.models.network import ConvolutionalNetwork, Network, TokenNetwork

_CHUNK = 32
"""Masked copies of an image that Score-CAM shows the network at a time."""


def eigen_cam(network: ConvolutionalNetwork, inputs: Tensor, targets: Tensor | None = None) -> MapBatch:
    """Eigen-CAM (Muhammad 2020): the maps' projection on their first principal component, uncentred.

    It shows what stirs the network most, whatever the class: targets are only written down. A
    component's sign is arbitrary; the one that makes the projection's sum positive is taken.
    Arguments, result and errors as ``grad_cam``.
    """
    with explaining(network, inputs, targets):
        maps = network.features(inputs)
        logits = network.head(maps)
        targets = logits.argmax(dim=1) if targets is None else targets
        places = maps.flatten(2)
        # Places are few: the eigenvector of their products is cheaper than a singular value decomposition.
        values, vectors = torch.linalg.eigh(places.transpose(1, 2) @ places)
        heat = vectors[:, :, -1] * values[:, -1:].clamp(min=0).sqrt()
        heat = heat * torch.where(heat.sum(dim=1, keepdim=True) < 0, -1.0, 1.0)
        return map_batch(network, heat.unflatten(1, maps.shape[2:]), logits, targets)


def score_cam(network: ConvolutionalNetwork, inputs: Tensor, targets: Tensor | None = None) -> MapBatch:
    """Score-CAM (Wang 2020): each map weighs what the image, seen through it alone, says for the class.

    Maps are scaled to 0..1 and laid over the image as masks, where 0 is mid grey; weights are the
    softmax of the target's logits. A map that is the same everywhere masks nothing and gets no weight.
    Arguments, result and errors as ``grad_cam``.
    """
    with explaining(network, inputs, targets):
        maps = network.features(inputs)
        logits = network.head(maps)
        targets = logits.argmax(dim=1) if targets is None else targets
        lowest, highest = maps.amin(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)
        spread = highest - lowest
        masks = (maps - lowest) / torch.where(spread > 0, spread, 1.0)
        scores = torch.stack(
            [
                _masked_scores(network, image, own_masks, int(target))
                for image, own_masks, target in zip(inputs, masks, targets, strict=True)
            ]
        )
        scores = scores.masked_fill(spread.flatten(1) == 0, -torch.inf)
        weights = torch.nan_to_num(scores.softmax(dim=1)).to(maps.dtype)
        return map_batch(network, torch.einsum("nk,nkhw->nhw", weights, maps), logits, targets)


def attention_rollout(network: TokenNetwork, inputs: Tensor, targets: Tensor | None = None) -> MapBatch:
    """Attention rollout (Abnar 2020): how much of every token reaches the mean that the head reads.

    Blocks are multiplied as ``(A + I) / 2``, the identity standing for the residual path. Without a
    class token, the mean over all rows is taken. It is the same for every class: targets are only
    written down. What reaches the mean from the least heeded token is taken off, since some of every
    token does. Arguments, result and errors as ``grad_cam``.
    """
    with explaining(network, inputs, targets):
        logits, blocks = network.attention(inputs)
        targets = logits.argmax(dim=1) if targets is None else targets
        reached = torch.full_like(blocks[0][:, :1], 1 / blocks[0].shape[1])
        for attention in reversed(blocks):
            reached = (reached @ attention + reached) / 2
        heat = reached - reached.amin(dim=2, keepdim=True)
        side = round(heat.shape[2] ** 0.5)
        return map_batch(network, heat.reshape(-1, side, side), logits, targets)


def _masked_scores(network: Network, image: Tensor, masks: Tensor, target: int) -> Tensor:
    """Logits (K,) of a class for an image (channels, S, S) seen through each of K masks (K, h, w)."""
    found = []
    for some in torch.split(masks, _CHUNK):
        fine = F.interpolate(some[:, None], image.shape[1:], mode="bilinear", align_corners=False)
        found.append(network(image * fine)[:, target])
    return torch.cat(found)
