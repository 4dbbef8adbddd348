"""Explanations made by Captum, in the shape of ours.

Captum is imported where it is used: the import takes a second that Grad-CAM need not wait. It gets a
copy of the inputs, because it sets flags on what it is given. The sum over channels is taken, and of
that what speaks for the class.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from fedlens.explain.batch import MapBatch, explaining, map_batch
from fedlens.explain.grad_cam import grad_cam
from fedlens.models.network import Network

STEPS = 32
"""Points on the path of integrated gradients."""

WINDOWS = 7
"""Occlusion's window is the image's side over this; it moves by half its side."""

_CHUNK = 32
"""Images that Captum shows the network at a time."""


def integrated_gradients(network: Network, inputs: Tensor, targets: Tensor | None = None) -> MapBatch:
    """Integrated gradients (Sundararajan 2017) from mid grey, Gauss-Legendre quadrature in 32 steps.

    Arguments, result and errors as ``grad_cam``.
    """
    from captum.attr import IntegratedGradients

    def attribute(images: Tensor, classes: Tensor) -> Tensor:
        method = IntegratedGradients(network)
        chunk = max(_CHUNK, len(images))
        found: Tensor = method.attribute(images, target=classes, n_steps=STEPS, internal_batch_size=chunk)
        return found

    return _explained(network, inputs, targets, attribute)


def occlusion(network: Network, inputs: Tensor, targets: Tensor | None = None) -> MapBatch:
    """Occlusion (Zeiler 2014): what the class loses while a mid grey square covers the place.

    The square's side is a seventh of the image's. Arguments, result and errors as ``grad_cam``.
    """
    from captum.attr import Occlusion

    def attribute(images: Tensor, classes: Tensor) -> Tensor:
        side = max(1, network.image_size // WINDOWS)
        step = max(1, side // 2)
        found: Tensor = Occlusion(network).attribute(
            images,
            target=classes,
            sliding_window_shapes=(network.channels, side, side),
            strides=(network.channels, step, step),
            perturbations_per_eval=max(1, _CHUNK // len(images)),
        )
        return found

    return _explained(network, inputs, targets, attribute, gradients=False)


def guided_backpropagation(network: Network, inputs: Tensor, targets: Tensor | None = None) -> MapBatch:
    """Guided backpropagation (Springenberg 2015). Not offered to users: it fails the randomisation test.

    It draws the image's edges, whatever the network learnt (Adebayo 2018, Nie 2018). Absolute values
    are taken, as they did. For networks whose activations are rectifiers. Arguments, result and errors
    as ``grad_cam``.
    """

    def attribute(images: Tensor, classes: Tensor) -> Tensor:
        return _guided(network, images, classes).abs()

    return _explained(network, inputs, targets, attribute)


def guided_grad_cam(network: Network, inputs: Tensor, targets: Tensor | None = None) -> MapBatch:
    """Guided Grad-CAM (Selvaraju 2017): guided backpropagation, pixel by pixel times Grad-CAM.

    For networks whose activations are rectifiers. Arguments, result and errors as ``grad_cam``.
    """

    def attribute(images: Tensor, classes: Tensor) -> Tensor:
        return _guided(network, images, classes) * grad_cam(network, images, classes).maps[:, None]

    return _explained(network, inputs, targets, attribute)


def _guided(network: Network, images: Tensor, classes: Tensor) -> Tensor:
    from captum.attr import GuidedBackprop

    with warnings.catch_warnings():
        # It announces the hooks that it sets and takes away again.
        warnings.filterwarnings("ignore", message="Setting backward hooks on ReLU")
        found: Tensor = GuidedBackprop(network).attribute(images, target=classes)
    return found


def _explained(
    network: Network,
    inputs: Tensor,
    targets: Tensor | None,
    attribute: Callable[[Tensor, Tensor], Tensor],
    *,
    gradients: bool = True,
) -> MapBatch:
    with explaining(network, inputs, targets):
        logits = network(inputs)
        targets = logits.argmax(dim=1) if targets is None else targets
        # Hooks that set gradients need every activation on the way to carry one.
        with torch.set_grad_enabled(gradients):
            found = attribute(inputs.detach().clone().requires_grad_(gradients), targets)
        return map_batch(network, found.detach().sum(dim=1), logits, targets)
