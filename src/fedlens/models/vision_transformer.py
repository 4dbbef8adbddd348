"""A small vision transformer (Dosovitskiy 2021), cut into features and head.

Made of PyTorch's own encoder layers; MONAI's blocks would need one more package (einops).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedlens.models.network import Network

PATCH = 16
"""Side of a token, pixels."""

_WIDTH, _MLP, _BLOCKS, _HEADS = 384, 1536, 8, 6


class VisionTransformer(Network):
    """16-pixel patches, 8 blocks of width 384 with 6 heads; about 14.6 million weights.

    It averages its tokens where the original reads a class token: every token then keeps its
    place on the grid, and the cut before the last block carries all that the head sees.
    """

    layer = "token grid before the last block"

    def __init__(self, *, classes: int, channels: int, image_size: int) -> None:
        super().__init__("vit", classes=classes, channels=channels, image_size=image_size)
        self.side = image_size // PATCH
        self.embedding = nn.Conv2d(channels, _WIDTH, PATCH, PATCH)
        self.positions = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, self.side**2, _WIDTH), std=0.02))
        self.blocks = nn.Sequential(*(_block() for _ in range(_BLOCKS - 1)))
        self.last_block = _block()
        self.norm = nn.LayerNorm(_WIDTH)
        self.output = nn.Linear(_WIDTH, classes)

    def features(self, inputs: Tensor) -> Tensor:
        """Token grid (N, 384, S/16, S/16) before the last block."""
        tokens: Tensor = self.embedding(inputs).flatten(2).transpose(1, 2)
        tokens = self.blocks(tokens + self.positions)
        return tokens.transpose(1, 2).reshape(-1, _WIDTH, self.side, self.side)

    def head(self, maps: Tensor) -> Tensor:
        """Last block, norm, mean over tokens and the linear layer."""
        tokens = self.last_block(maps.flatten(2).transpose(1, 2))
        logits: Tensor = self.output(self.norm(tokens).mean(dim=1))
        return logits.float()


def _block() -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(
        _WIDTH, _HEADS, _MLP, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
