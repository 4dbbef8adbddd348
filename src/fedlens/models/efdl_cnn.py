"""The paper's own network (EFDL 3.3: convolution, batch norm, max pooling, fully connected, softmax).

The paper gives the kinds of layers and not their sizes. These sizes were chosen by measured training
speed on two CPU cores: early pooling keeps the costly stages small, and channel counts are multiples
of the vector width. About 1.2 million weights.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from fedlens.models.network import ConvolutionalNetwork

_STEM = 32
_WIDTHS = (64, 128, 256)
_HIDDEN = 128
_EARLY = 3
"""Parts of ``stages`` before the last halving."""


class _Stage(nn.Module):
    """Two convolutions; the second adds to its own input."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.first = _convolution(width_in, width)
        self.second = _convolution(width, width)

    def forward(self, inputs: Tensor) -> Tensor:
        maps: Tensor = self.first(inputs)
        added: Tensor = maps + self.second(maps)
        return added


class EfdlCnn(ConvolutionalNetwork):
    """Stem, three stages of widths 64, 128 and 256, and two fully connected layers.

    Works for any image size of 16 pixels or more; the maps are a sixteenth of it. The softmax is
    in the loss.

    Args:
        classes: Outputs.
        channels: Input channels.
        image_size: Side of the input, pixels.
        dropout: Fraction dropped between the two fully connected layers.
    """

    layer = "sum after the last convolution"
    early_layer = "sum after the second stage"
    rectified = True

    _name = "efdl-cnn"
    _width = _WIDTHS[-1]

    def __init__(self, *, classes: int, channels: int, image_size: int, dropout: float) -> None:
        super().__init__(self._name, classes=classes, channels=channels, image_size=image_size)
        self.dropout = dropout
        self.stem = nn.Sequential(_convolution(channels, _STEM, kernel=5, stride=2), nn.MaxPool2d(2))
        small, middle, large = _WIDTHS
        self.stages = nn.Sequential(
            _Stage(_STEM, small),
            nn.MaxPool2d(2),
            _Stage(small, middle),
            nn.MaxPool2d(2),
            _Stage(middle, large),
        )
        # Before the head: the last matrix must be the one that meets the classes (hospital/optimizer.py).
        self.join = self._make_join()
        self.hidden = nn.Linear(self._width, _HIDDEN)
        self.rectifier = nn.ReLU()
        self.output = nn.Linear(_HIDDEN, classes)

    def _make_join(self) -> nn.Module | None:
        return None

    def early_features(self, inputs: Tensor) -> Tensor:
        """Maps (N, 128, S/8, S/8)."""
        maps: Tensor = self.stages[:_EARLY](self.stem(inputs))
        return maps

    def late_features(self, maps: Tensor) -> Tensor:
        """Maps (N, 256, S/16, S/16)."""
        late: Tensor = self.stages[_EARLY:](maps)
        return late

    def head(self, maps: Tensor) -> Tensor:
        """Global average pooling and the fully connected layers."""
        hidden = self.rectifier(self.hidden(maps.mean(dim=(2, 3))))
        logits: Tensor = self.output(F.dropout(hidden, self.dropout, self.training))
        return logits.float()


class _Join(nn.Module):
    """Coarse maps brought back to the size of finer ones and added to them (feature pyramid, Lin 2017)."""

    def __init__(self, fine: int, coarse: int, width: int) -> None:
        super().__init__()
        self.lateral = _convolution(fine, width, kernel=1)
        self.deep = _convolution(coarse, width, kernel=1)
        self.joined = _convolution(width, width)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        # Nearest: bilinear interpolation of channels-last maps is several times slower in training.
        back = F.interpolate(self.deep(coarse), fine.shape[2:], mode="nearest")
        maps: Tensor = self.joined(self.lateral(fine) + back)
        return maps


class FineEfdlCnn(EfdlCnn):
    """The same with maps twice as fine: the last stage's are brought back to the size of the second's.

    The last stage knows more, and the second one where. The maps are an eighth of the image; about 1.4
    million weights in all.
    """

    layer = "second and last stage joined"
    early_layer = "sum after the first stage"
    _name = "efdl-cnn-fine"
    _width = 128

    def _make_join(self) -> nn.Module:
        _, middle, large = _WIDTHS
        return _Join(middle, large, self._width)

    def early_features(self, inputs: Tensor) -> Tensor:
        """Maps (N, 64, S/4, S/4)."""
        maps: Tensor = self.stages[0](self.stem(inputs))
        return maps

    def late_features(self, maps: Tensor) -> Tensor:
        """Maps (N, 128, S/8, S/8)."""
        middle = self.stages[1:_EARLY](maps)
        assert self.join is not None
        joined: Tensor = self.join(middle, self.stages[_EARLY:](middle))
        return joined


def _convolution(width_in: int, width: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )
