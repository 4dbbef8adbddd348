"""What every network has in common: a part that keeps places apart, and a head.

Explanations need no hooks, because every network can be run in pieces: convolutional ones in three
(early maps, last maps, logits), those over tokens in two, with their attention for the asking.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torch import Tensor, nn

Family = Literal["convolutional", "tokens"]


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
        family: Which explanations suit it.
        layer: In words, what ``features`` returns; written beside every saliency map.
        rectified: All its activations are ``nn.ReLU`` modules, which guided backpropagation needs.
    """

    family: ClassVar[Family]
    rectified: ClassVar[bool]
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


class ConvolutionalNetwork(Network):
    """A network whose features come in two steps, the first of which keeps finer maps.

    Attributes:
        early_layer: In words, what ``early_features`` returns.
    """

    family = "convolutional"
    early_layer: ClassVar[str]

    @abstractmethod
    def early_features(self, inputs: Tensor) -> Tensor:
        """Inputs (N, channels, S, S) to maps (N, K', 2h, 2w), the last ones twice as fine as ``features``."""

    @abstractmethod
    def late_features(self, maps: Tensor) -> Tensor:
        """Maps (N, K', 2h, 2w), which stay as they are, to the last maps (N, K, h, w)."""

    def features(self, inputs: Tensor) -> Tensor:
        """Inputs (N, channels, S, S) to the last maps (N, K, h, w)."""
        return self.late_features(self.early_features(inputs))


class TokenNetwork(Network):
    """A network of attention blocks over a square grid of tokens, without a class token."""

    family = "tokens"
    rectified = False

    @abstractmethod
    def attention(self, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Logits, and how much each token attends to each other in each block.

        Args:
            inputs: (N, channels, S, S).

        Returns:
            Logits (N, classes) float32; and for each block, in order, the mean over its heads (N, T, T)
            of the softmax weights, whose rows add up to 1. Tokens run along rows of the image.
        """
