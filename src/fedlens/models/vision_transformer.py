"""MONAI's vision transformer (Dosovitskiy 2021), cut into features and head.

MONAI is imported where the network is built, as for its convolutional networks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fedlens.models.network import TokenNetwork

PATCH = 16
"""Side of a token, pixels."""

_WIDTH, _MLP, _BLOCKS, _HEADS = 384, 1536, 8, 6


class VisionTransformer(TokenNetwork):
    """16-pixel patches, 8 blocks of width 384 with 6 heads; about 14.5 million weights.

    It averages its tokens where the original reads a class token: every token then keeps its
    place on the grid, and the cut before the last block carries all that the head sees.
    """

    layer = "token grid before the last block"

    def __init__(self, *, classes: int, channels: int, image_size: int) -> None:
        from monai.networks.nets import ViT

        super().__init__("vit", classes=classes, channels=channels, image_size=image_size)
        self.side = image_size // PATCH
        network = ViT(
            in_channels=channels,
            img_size=image_size,
            patch_size=PATCH,
            hidden_size=_WIDTH,
            mlp_dim=_MLP,
            num_layers=_BLOCKS,
            num_heads=_HEADS,
            spatial_dims=2,
            qkv_bias=True,
        )
        for block in network.blocks:
            # Only MONAI's decoder uses it: here it would be dead weight in every update.
            block.norm_cross_attn = nn.Identity()
        self.embedding: nn.Module = network.patch_embedding
        self.blocks = nn.Sequential(*network.blocks[:-1])
        self.last_block: nn.Module = network.blocks[-1]
        self.norm: nn.Module = network.norm
        self.output = nn.Linear(_WIDTH, classes)

    def features(self, inputs: Tensor) -> Tensor:
        """Token grid (N, 384, S/16, S/16) before the last block."""
        tokens: Tensor = self.blocks(self.embedding(inputs))
        return tokens.transpose(1, 2).reshape(-1, _WIDTH, self.side, self.side)

    def head(self, maps: Tensor) -> Tensor:
        """Last block, norm, mean over tokens and the linear layer."""
        tokens = self.last_block(maps.flatten(2).transpose(1, 2))
        logits: Tensor = self.output(self.norm(tokens).mean(dim=1))
        return logits.float()

    def attention(self, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Logits, and each block's attention (N, T, T), mean over its heads; T = (S/16)^2.

        MONAI's blocks keep their attention when told to; afterwards they are told not to and hold
        none.
        """
        tokens: Tensor = self.embedding(inputs)
        kept = []
        for block in (*self.blocks, self.last_block):
            weights: Any = block.attn
            weights.save_attn = True
            try:
                tokens = block(tokens)
                kept.append(weights.att_mat.mean(dim=1))
            finally:
                weights.save_attn = False
                weights.att_mat = torch.Tensor()
        logits: Tensor = self.output(self.norm(tokens).mean(dim=1))
        return logits.float(), tuple(kept)
