"""MONAI's convolutional networks, cut into features and head.

MONAI is imported where a network is built, because the import alone takes seconds that users of
the default network need not wait. Nothing is downloaded: weights start random, or from
``model.start``.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from fedlens.models.network import Network


class DenseNet121(Network):
    """DenseNet-121 (Huang 2017)."""

    layer = "last batch norm, before its rectifier"

    def __init__(self, *, classes: int, channels: int, image_size: int) -> None:
        from monai.networks.nets import DenseNet121 as MonaiDenseNet121

        super().__init__("densenet121", classes=classes, channels=channels, image_size=image_size)
        network = MonaiDenseNet121(spatial_dims=2, in_channels=channels, out_channels=classes)
        self.body: nn.Module = network.features
        self.output: nn.Module = network.class_layers.out

    def features(self, inputs: Tensor) -> Tensor:
        """Maps (N, 1024, S/32, S/32) after the last batch norm, before its rectifier."""
        maps: Tensor = self.body(inputs)
        return maps

    def head(self, maps: Tensor) -> Tensor:
        """Rectifier, global average pooling and the linear layer."""
        logits: Tensor = self.output(F.relu(maps).mean(dim=(2, 3)))
        return logits.float()


class ResNet18(Network):
    """ResNet-18 (He 2016), with its first convolution at stride 2; MONAI's default is 1."""

    layer = "output of the last residual block"

    def __init__(self, *, classes: int, channels: int, image_size: int) -> None:
        from monai.networks.nets import resnet18

        super().__init__("resnet18", classes=classes, channels=channels, image_size=image_size)
        network = resnet18(
            spatial_dims=2,
            n_input_channels=channels,
            num_classes=classes,
            conv1_t_stride=2,
            bias_downsample=False,
        )
        parts = ("conv1", "bn1", "act", "maxpool", "layer1", "layer2", "layer3", "layer4")
        self.body = nn.Sequential(*(getattr(network, part) for part in parts))
        self.output: nn.Module = network.fc

    def features(self, inputs: Tensor) -> Tensor:
        """Maps (N, 512, S/32, S/32) of the last residual block."""
        maps: Tensor = self.body(inputs)
        return maps

    def head(self, maps: Tensor) -> Tensor:
        """Global average pooling and the linear layer."""
        logits: Tensor = self.output(maps.mean(dim=(2, 3)))
        return logits.float()


class EfficientNetB0(Network):
    """EfficientNet-B0 (Tan 2019)."""

    layer = "last activation before pooling"

    def __init__(self, *, classes: int, channels: int, image_size: int) -> None:
        from monai.networks.nets import EfficientNetBN

        super().__init__("efficientnet-b0", classes=classes, channels=channels, image_size=image_size)
        network = EfficientNetBN(
            "efficientnet-b0", pretrained=False, spatial_dims=2, in_channels=channels, num_classes=classes
        )
        stem = (network._conv_stem_padding, network._conv_stem, network._bn0, network._swish)
        top = (network._conv_head_padding, network._conv_head, network._bn1, network._swish)
        self.body = nn.Sequential(*stem, network._blocks, *top)
        self.drop: nn.Module = network._dropout
        self.output: nn.Module = network._fc

    def features(self, inputs: Tensor) -> Tensor:
        """Maps (N, 1280, S/32, S/32) after the last activation."""
        maps: Tensor = self.body(inputs)
        return maps

    def head(self, maps: Tensor) -> Tensor:
        """Global average pooling, MONAI's dropout of 0.2 and the linear layer."""
        logits: Tensor = self.output(self.drop(maps.mean(dim=(2, 3))))
        return logits.float()
