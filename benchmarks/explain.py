"""What a saliency map costs, and whether it is right: ``python benchmarks/explain.py [--json FILE]``.

Three questions, on one network of random weights and one batch of random images:

- How many inference forward passes does ``grad_cam`` cost? Passes and maps are timed in turn, and the
  median of the ratios is given. Bar: 1.15 for 32 images of 224 px on ``efdl-cnn``. The same ratio of
  processor time stands beside it: if only the wall clock misses the bar, other work had the cores.
- Does it equal the textbook (hook, full backward pass)? Bar: 1e-5 of the 0..1 scale, every network.
- How do Captum's ``LayerGradCam`` and pytorch-grad-cam's ``GradCAM`` compare, in time and values? Their
  maps are upsampled and normalised in our way before values are compared. A package that cannot be
  imported is named, and its figures are left out.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from _figures import write_figures
from torch import Tensor, nn
from torch.nn import functional as F

from fedlens.explain.grad_cam import grad_cam
from fedlens.models.network import Network
from fedlens.models.registry import build_network, network_names
from fedlens.study import ModelSettings

BAR_PASSES = 1.15
BAR_DIFFERENCE = 1e-5

Explainer = Callable[[], Tensor]


def network_and_batch(name: str, images: int, size: int) -> tuple[Network, Tensor, Tensor]:
    """A network with running statistics of its own, a batch, and one target for each image."""
    network = build_network(ModelSettings(name=name), classes=4, channels=3, image_size=size, seed=0)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(images, 3, size, size, generator=generator).to(memory_format=torch.channels_last)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.no_grad():
        network(inputs[:8])
    return network.eval(), inputs, torch.randint(0, 4, (images,), generator=generator)


def normalised(heat: Tensor, size: int) -> Tensor:
    """(N, h, w) of any scale to (N, size, size), 0..1, as ``grad_cam`` does it."""
    heat = F.interpolate(heat.clamp(min=0)[:, None], (size, size), mode="bilinear", align_corners=False)[:, 0]
    hottest = heat.amax(dim=(1, 2), keepdim=True)
    return heat / torch.where(hottest > 0, hottest, 1.0)


def ratios(base: Callable[[], object], other: Callable[[], object], repetitions: int) -> tuple[float, float]:
    """Medians of time(other) / time(base), wall and processor, over pairs measured in turn."""
    clocks = (time.perf_counter, time.process_time)
    pairs = []
    base()
    other()
    for repetition in range(repetitions):
        spent = {}
        for function in (base, other) if repetition % 2 == 0 else (other, base):
            began = [clock() for clock in clocks]
            function()
            spent[function] = [clock() - start for clock, start in zip(clocks, began, strict=True)]
        pairs.append([slow / fast for slow, fast in zip(spent[other], spent[base], strict=True)])
    wall, processor = (statistics.median(values) for values in zip(*pairs, strict=True))
    return wall, processor


def textbook(network: Network, inputs: Tensor, targets: Tensor) -> Tensor:
    """Forward with gradients for all weights, and a full backward pass."""
    maps = network.features(inputs)
    maps.retain_grad()
    torch.autograd.backward(network.head(maps).gather(1, targets[:, None]).sum())
    assert maps.grad is not None
    heat = (maps.grad.mean(dim=(2, 3), keepdim=True) * maps).sum(1).relu().detach()
    network.zero_grad()
    return normalised(heat, network.image_size)


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


def captum_explainer(network: Network, inputs: Tensor, targets: Tensor) -> Explainer:
    """Captum's layer Grad-CAM on the same maps."""
    hookable = _Hookable(network)
    method = importlib.import_module("captum.attr").LayerGradCam(hookable, hookable.maps)
    size = network.image_size

    def explain() -> Tensor:
        return normalised(method.attribute(inputs, targets, relu_attributions=True)[:, 0].detach(), size)

    return explain


def pytorch_grad_cam_explainer(network: Network, inputs: Tensor, targets: Tensor) -> Explainer:
    """pytorch-grad-cam on the same maps; its own resizing and scaling are part of what it does."""
    package = importlib.import_module("pytorch_grad_cam")
    output = importlib.import_module("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget
    hookable = _Hookable(network)
    method = package.GradCAM(hookable, [hookable.maps])
    wanted = [output(int(target)) for target in targets]

    def explain() -> Tensor:
        return torch.from_numpy(method(input_tensor=inputs, targets=wanted))

    return explain


PACKAGES = {"captum": captum_explainer, "pytorch_grad_cam": pytorch_grad_cam_explainer}


def compare_packages(network: Network, inputs: Tensor, targets: Tensor, repetitions: int) -> dict[str, float]:
    """Time relative to ``grad_cam``, and the largest difference of values."""
    figures = {}

    def own() -> Tensor:
        return grad_cam(network, inputs, targets).maps

    for package, make in PACKAGES.items():
        try:
            explain = make(network, inputs, targets)
        except ImportError as error:
            print(f"{package}: not measured, it cannot be imported ({error})")
            continue
        figures[f"{package}_time_over_own"], _ = ratios(own, explain, repetitions)
        figures[f"{package}_largest_difference"] = float((explain() - own()).abs().max())
    return figures


def main() -> int:
    """Measure, write, and fail where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--images", type=int, default=32)
    arguments = parser.parse_args()

    figures: dict[str, float] = {}
    for name in ("efdl-cnn", "resnet18"):
        network, inputs, targets = network_and_batch(name, arguments.images, 224)

        def forward(network: Network = network, inputs: Tensor = inputs) -> None:
            with torch.no_grad():
                network(inputs)

        def explain(network: Network = network, inputs: Tensor = inputs, targets: Tensor = targets) -> None:
            grad_cam(network, inputs, targets)

        wall, processor = ratios(forward, explain, arguments.repetitions)
        figures[f"{name}_forward_passes"] = wall
        figures[f"{name}_forward_passes_processor_time"] = processor
        if name == "efdl-cnn":
            repetitions = max(3, arguments.repetitions // 3)
            figures |= compare_packages(network, inputs, targets, repetitions)
    for name in network_names():
        network, inputs, targets = network_and_batch(name, 4, 224)
        difference = (
            (grad_cam(network, inputs, targets).maps - textbook(network, inputs, targets)).abs().max()
        )
        figures[f"{name}_difference_from_textbook"] = float(difference)
    write_figures(arguments.json, figures)

    missed = [name for name, value in figures.items() if name.endswith("textbook") and value > BAR_DIFFERENCE]
    missed += ["efdl-cnn_forward_passes"] if figures["efdl-cnn_forward_passes"] > BAR_PASSES else []
    print("bars missed: " + ", ".join(missed) if missed else "all bars held")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
