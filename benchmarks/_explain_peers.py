"""Other packages' explanations of the same network, cut at the same maps, for ``explain.py``."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedlens.models.network import Network

Explainer = Callable[[], Tensor]

_PYTORCH_GRAD_CAM = {
    "grad-cam": "GradCAM",
    "grad-cam++": "GradCAMPlusPlus",
    "hires-cam": "HiResCAM",
    "layer-cam": "LayerCAM",
    "eigen-cam": "EigenCAM",
    "score-cam": "ScoreCAM",
}

_CAPTUM = {"grad-cam": "LayerGradCam", "guided-grad-cam": "GuidedGradCam"}
"""What we make without it. Integrated gradients and occlusion are Captum's own in both."""


def normalised(heat: Tensor, size: int) -> Tensor:
    """(N, h, w) of any scale to (N, size, size), 0..1, as our methods do it."""
    heat = F.interpolate(heat.clamp(min=0)[:, None], (size, size), mode="bilinear", align_corners=False)[:, 0]
    hottest = heat.amax(dim=(1, 2), keepdim=True)
    return heat / torch.where(hottest > 0, hottest, 1.0)


class _WholeFeatures(nn.Module):
    """Gives other packages one module whose output is the maps, which is what they hook."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network.features(inputs)


class _Hookable(nn.Module):
    """The same network, cut where the hooks of other packages can see it."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.maps = _WholeFeatures(network)
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network.head(self.maps(inputs))


def captum_explainer(method: str, network: Network, inputs: Tensor, targets: Tensor) -> Explainer:
    """Captum's explanation on the same maps."""
    hookable = _Hookable(network)
    made = getattr(importlib.import_module("captum.attr"), _CAPTUM[method])(hookable, hookable.maps)
    size = network.image_size

    def explain() -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if method == "grad-cam":
                found = made.attribute(inputs, targets, relu_attributions=True)
            else:
                images = inputs.detach().clone().requires_grad_()
                found = made.attribute(images, targets, interpolate_mode="bilinear")
        return normalised(found.detach().sum(dim=1), size)

    return explain


def pytorch_grad_cam_explainer(method: str, network: Network, inputs: Tensor, targets: Tensor) -> Explainer:
    """pytorch-grad-cam on the same maps; its own resizing and scaling are part of what it does."""
    package = importlib.import_module("pytorch_grad_cam")
    output = importlib.import_module("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget
    hookable = _Hookable(network)
    made = getattr(package, _PYTORCH_GRAD_CAM[method])(hookable, [hookable.maps])
    wanted = [output(int(target)) for target in targets]

    def explain() -> Tensor:
        return torch.from_numpy(made(input_tensor=inputs, targets=wanted))

    return explain


PACKAGES: Mapping[str, tuple[Mapping[str, str], Callable[..., Explainer]]] = {
    "captum": (_CAPTUM, captum_explainer),
    "pytorch_grad_cam": (_PYTORCH_GRAD_CAM, pytorch_grad_cam_explainer),
}
"""By import name: the methods it has, and how to get one."""
