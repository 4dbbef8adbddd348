"""The paper's own network (EFDL 3.3: convolution, batch norm, max pooling, fully connected, softmax).

The paper gives the kinds of layers and not their sizes. These sizes were chosen by measured training
speed on two CPU cores: early pooling keeps the costly stages small, and channel counts are multiples
of the vector width. About 2 million weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedlens.models.network import Network

_STEM = 32
_WIDTHS = (64, 128, 256)
_HIDDEN = 128
_SQUEEZE = 8


class _Residual(nn.Module):
    """Two convolutions, channels weighed by what the whole map holds, added to the input (He 2016, Hu 2018).

    The last norm starts at zero, so the block starts as the identity and the network as a shallow one.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _convolution(width, width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        nn.init.zeros_(self.norm.weight)
        self.squeeze = nn.Linear(width, width // _SQUEEZE)
        self.excite = nn.Linear(width // _SQUEEZE, width)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = self.norm(self.second(self.first(inputs)))
        weights = torch.sigmoid(self.excite(F.relu(self.squeeze(maps.mean(dim=(2, 3))))))
        return F.relu(inputs + maps * weights[:, :, None, None])


class EfdlCnn(Network):
    """Stem, three stages of widths 64, 128 and 256, and two fully connected layers.

    A stage is a convolution and a residual block of two more.

    Works for any image size of 16 pixels or more; the maps are a sixteenth of it. The softmax is
    in the loss.

    Args:
        classes: Outputs.
        channels: Input channels.
        image_size: Side of the input, pixels.
        dropout: Fraction dropped between the two fully connected layers.
    """

    layer = "output of the last residual block"

    def __init__(self, *, classes: int, channels: int, image_size: int, dropout: float) -> None:
        super().__init__("efdl-cnn", classes=classes, channels=channels, image_size=image_size)
        self.dropout = dropout
        self.stem = nn.Sequential(_convolution(channels, _STEM, kernel=5, stride=2), nn.MaxPool2d(2))
        small, middle, large = _WIDTHS
        self.stages = nn.Sequential(
            *_stage(_STEM, small),
            nn.MaxPool2d(2),
            *_stage(small, middle),
            nn.MaxPool2d(2),
            *_stage(middle, large),
        )
        self.hidden = nn.Linear(large, _HIDDEN)
        self.output = nn.Linear(_HIDDEN, classes)

    def features(self, inputs: Tensor) -> Tensor:
        """Maps (N, 256, S/16, S/16)."""
        maps: Tensor = self.stages(self.stem(inputs))
        return maps

    def head(self, maps: Tensor) -> Tensor:
        """Global average pooling and the fully connected layers."""
        hidden = F.relu(self.hidden(maps.mean(dim=(2, 3))))
        logits: Tensor = self.output(F.dropout(hidden, self.dropout, self.training))
        return logits.float()


def _stage(width_in: int, width: int) -> tuple[nn.Module, nn.Module]:
    return _convolution(width_in, width), _Residual(width)


def _convolution(width_in: int, width: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )
