"""A batch of explained images: what every measure looks at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fedlens.errors import ExplanationError
from fedlens.models.network import Network

Explain = Callable[[Tensor, Tensor], Tensor]
"""Inputs (N, C, S, S) float32 and targets (N,) int64 to maps (N, S, S) float32, 0..1."""


@dataclass(frozen=True, eq=False)
class Explained:
    """Images, their maps, and all that judging them takes.

    No measure lets one image's figure depend on the others of its batch: random draws are the same for
    every image. So figures add up over batches and hospitals.

    Attributes:
        network: In evaluation mode.
        explain: The method; called again on changed inputs.
        inputs: (N, C, S, S) float32, as ``to_input`` makes them.
        targets: (N,) int64, the explained classes.
        maps: (N, S, S) float32, 0..1.
        masks: (N, S, S) bool, experts' outlines; an image without any has an empty one. None where no
            image has one.
    """

    network: Network
    explain: Explain
    inputs: Tensor
    targets: Tensor
    maps: Tensor
    masks: Tensor | None = None

    def __post_init__(self) -> None:
        grid = (len(self.inputs), *self.inputs.shape[2:])
        masks = self.maps if self.masks is None else self.masks
        if self.maps.shape != grid or masks.shape != grid or self.targets.shape != grid[:1]:
            raise ExplanationError(
                f"Maps {tuple(self.maps.shape)}, outlines {tuple(masks.shape)} and targets "
                f"{tuple(self.targets.shape)} do not fit together.",
                why=f"Inputs are {tuple(self.inputs.shape)}.",
            )
        # Written so that NaN fails too.
        if self.maps.numel() and not (self.maps.min() >= 0 and self.maps.max() <= 1):
            raise ExplanationError("Some saliency maps have values outside 0..1.")
        if self.network.training:
            raise ExplanationError("The network is in training mode.", fix="Call network.eval() first.")


def probability(network: Network, inputs: Tensor, targets: Tensor) -> Tensor:
    """Softmax probability of each image's target, (N,) float64, without gradients."""
    with torch.no_grad():
        logits: Tensor = network(inputs)
    return logits.softmax(1).gather(1, targets[:, None])[:, 0].double()


def fixed_draws(seed: int) -> torch.Generator:
    """Randomness that is the same for every image, hospital and run."""
    return torch.Generator().manual_seed(seed)


def mean_colour(inputs: Tensor) -> Tensor:
    """Each image's own mean, (N, C, 1, 1): what a removed place is painted with."""
    return inputs.mean(dim=(2, 3), keepdim=True)


def blurred(inputs: Tensor) -> Tensor:
    """Gaussian blur with a deviation of a 32nd of the image's side, reflecting at the border."""
    size = inputs.shape[2]
    deviation = size / 32
    reach = min(int(3 * deviation + 0.5), size - 1)
    place = torch.arange(-reach, reach + 1, dtype=inputs.dtype, device=inputs.device)
    kernel = torch.exp(-0.5 * (place / deviation).square())
    kernel = (kernel / kernel.sum()).expand(inputs.shape[1], 1, 1, -1)
    padded = F.pad(inputs, (reach,) * 4, mode="reflect")
    rows = F.conv2d(padded, kernel, groups=inputs.shape[1])
    return F.conv2d(rows, kernel.transpose(2, 3), groups=inputs.shape[1])
