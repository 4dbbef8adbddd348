"""What every network has in common: a convolutional (or token) part and a head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn


class Network(nn.Module, ABC):
    """A classifier cut in two where Grad-CAM looks: ``forward = head(features(x))``.

    The cut is what makes explanations cheap and hook-free: the costly half runs without gradients,
    and only the head is differentiated.

    Args:
        name: The registry's name.
        classes: Outputs.
        channels: Input channels.
        image_size: Side of the square input the network is built for, pixels.

    Attributes:
        layer: In words, what ``features`` returns; written beside every saliency map.
    """

    layer: ClassVar[str]

    def __init__(self, name: str, *, classes: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.name = name
        self.classes = classes
        self.channels = channels
        self.image_size = image_size

    @abstractmethod
    def features(self, inputs: Tensor) -> Tensor:
        """Inputs (N, channels, S, S) to maps (N, K, h, w), the last ones with spatial meaning."""

    @abstractmethod
    def head(self, maps: Tensor) -> Tensor:
        """Maps (N, K, h, w), which stay as they are, to logits (N, classes) float32."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs (N, channels, S, S) to logits (N, classes) float32; softmax is left to the caller."""
        return self.head(self.features(inputs))
