"""MONAI's convolutional networks, cut into features and head.

MONAI is imported where a network is built, because the import alone takes seconds that users of
the default network need not wait. Nothing is downloaded: weights start random, or from
``model.start``.
"""

from __future__ import annotations

from torch import Tensor, nn

from fedlens.models.network import ConvolutionalNetwork

_EARLY_STACKS = 5
"""EfficientNet's stacks of blocks before the last halving."""


class DenseNet121(ConvolutionalNetwork):
    """DenseNet-121 (Huang 2017)."""

    layer = "last batch norm, rectified"
    early_layer = "third dense block"
    rectified = True

    def __init__(self, *, classes: int, channels: int, image_size: int) -> None:
        from monai.networks.nets import DenseNet121 as MonaiDenseNet121

        super().__init__("densenet121", classes=classes, channels=channels, image_size=image_size)
        network = MonaiDenseNet121(spatial_dims=2, in_channels=channels, out_channels=classes)
        self.body: nn.Sequential = network.features
        self.output: nn.Module = network.class_layers.out
        self.rectifier = nn.ReLU()
        self._early = [name for name, _ in network.features.named_children()].index("transition3")

    def early_features(self, inputs: Tensor) -> Tensor:
        """Maps (N, 1024, S/16, S/16)."""
        maps: Tensor = self.body[: self._early](inputs)
        return maps

    def late_features(self, maps: Tensor) -> Tensor:
        """Maps (N, 1024, S/32, S/32) after the last batch norm and its rectifier."""
        late: Tensor = self.rectifier(self.body[self._early :](maps))
        return late

    def head(self, maps: Tensor) -> Tensor:
        """Global average pooling and the linear layer."""
        logits: Tensor = self.output(maps.mean(dim=(2, 3)))
        return logits.float()


class ResNet18(ConvolutionalNetwork):
    """ResNet-18 (He 2016), with its first convolution at stride 2; MONAI's default is 1."""

    layer = "output of the last residual block"
    early_layer = "output of the third residual stage"
    rectified = True

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

    def early_features(self, inputs: Tensor) -> Tensor:
        """Maps (N, 256, S/16, S/16) of the third stage."""
        maps: Tensor = self.body[:-1](inputs)
        return maps

    def late_features(self, maps: Tensor) -> Tensor:
        """Maps (N, 512, S/32, S/32) of the last residual block."""
        late: Tensor = self.body[-1](maps)
        return late

    def head(self, maps: Tensor) -> Tensor:
        """Global average pooling and the linear layer."""
        logits: Tensor = self.output(maps.mean(dim=(2, 3)))
        return logits.float()


class EfficientNetB0(ConvolutionalNetwork):
    """EfficientNet-B0 (Tan 2019)."""

    layer = "last activation before pooling"
    early_layer = "output of the fifth stack of blocks"
    rectified = False

    def __init__(self, *, classes: int, channels: int, image_size: int) -> None:
        from monai.networks.nets import EfficientNetBN

        super().__init__("efficientnet-b0", classes=classes, channels=channels, image_size=image_size)
        network = EfficientNetBN(
            "efficientnet-b0", pretrained=False, spatial_dims=2, in_channels=channels, num_classes=classes
        )
        stem = (network._conv_stem_padding, network._conv_stem, network._bn0, network._swish)
        top = (network._conv_head_padding, network._conv_head, network._bn1, network._swish)
        self.body = nn.Sequential(*stem, network._blocks, *top)
        self._stem = len(stem)
        self.drop: nn.Module = network._dropout
        self.output: nn.Module = network._fc

    def early_features(self, inputs: Tensor) -> Tensor:
        """Maps (N, 112, S/16, S/16) of the fifth of seven stacks."""
        maps: Tensor = self._stacks[:_EARLY_STACKS](self.body[: self._stem](inputs))
        return maps

    def late_features(self, maps: Tensor) -> Tensor:
        """Maps (N, 1280, S/32, S/32) after the last activation."""
        late: Tensor = self.body[self._stem + 1 :](self._stacks[_EARLY_STACKS:](maps))
        return late

    @property
    def _stacks(self) -> nn.Sequential:
        stacks = self.body[self._stem]
        assert isinstance(stacks, nn.Sequential)
        return stacks

    def head(self, maps: Tensor) -> Tensor:
        """Global average pooling, MONAI's dropout of 0.2 and the linear layer."""
        logits: Tensor = self.output(self.drop(maps.mean(dim=(2, 3))))
        return logits.float()
