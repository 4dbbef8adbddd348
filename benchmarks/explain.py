"""What saliency maps cost, and whether they are right: ``python benchmarks/explain.py [--json FILE]``.

Three questions, on networks of random weights and batches of random images:

- How many inference forward passes does a map cost, by each method? Passes and maps are timed in turn,
  and the median of the ratios is given. Bar: 1.3 for Grad-CAM, Grad-CAM++, HiResCAM and LayerCAM, 32
  images of 224 px on ``efdl-cnn``. The same ratio of processor time stands beside it: if only the wall
  clock misses the bar, other work had the cores. Methods of many passes are timed once, on few images.
- Do they equal the textbook (full backward pass)? Bar: 1e-5 of the 0..1 scale, every network.
- How do Captum and pytorch-grad-cam compare, in time and values, for the same network and images? Their
  maps are upsampled and normalised in our way before values are compared; pytorch-grad-cam does it its
  own way, which alone makes differences. A package that cannot be imported is named and left out.
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
from _explain_peers import PACKAGES, normalised
from _figures import write_figures
from torch import Tensor
from torch.nn import functional as F

from fedlens.explain.methods import METHODS, method_names
from fedlens.models.network import Network
from fedlens.models.registry import build_network, network_names
from fedlens.study import ModelSettings

BAR_PASSES = 1.3
BAR_DIFFERENCE = 1e-5
BARRED = ("grad-cam", "grad-cam++", "hires-cam", "layer-cam")
SLOW = ("score-cam", "integrated-gradients", "occlusion")
TIMED = ("efdl-cnn", "resnet18", "vit")

Weigh = Callable[[Tensor, Tensor], Tensor]


def network_and_batch(name: str, images: int, size: int) -> tuple[Network, Tensor, Tensor]:
    """A network with running statistics of its own, a batch, and one target for each image."""
    network = build_network(ModelSettings(name=name), classes=4, channels=3, image_size=size, seed=0)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(images, 3, size, size, generator=generator).to(memory_format=torch.channels_last)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.no_grad():
        network(inputs[:8])
    return network.eval(), inputs, torch.randint(0, 4, (images,), generator=generator)


def ratios(base: Callable[[], object], other: Callable[[], object], repetitions: int) -> tuple[float, float]:
    """Medians of time(other) / time(base), wall and processor, over pairs measured in turn."""
    clocks = (time.perf_counter, time.process_time)
    pairs = []
    base()
    if repetitions > 1:
        other()
    for repetition in range(repetitions):
        spent = {}
        # Each goes first in every other pair, so that neither always finds the caches warm.
        for function in (base, other) if repetition % 2 else (other, base):
            began = [clock() for clock in clocks]
            function()
            spent[function] = [clock() - start for clock, start in zip(clocks, began, strict=True)]
        pairs.append([slow / fast for slow, fast in zip(spent[other], spent[base], strict=True)])
    wall, processor = (statistics.median(values) for values in zip(*pairs, strict=True))
    return wall, processor


def _higher_derivatives(maps: Tensor, gradient: Tensor) -> Tensor:
    alpha = gradient**2 / (2 * gradient**2 + gradient**3 * maps.sum((2, 3), keepdim=True))
    weights = (torch.where(gradient > 0, alpha, 0.0) * gradient).sum((2, 3), keepdim=True)
    return (weights * maps).sum(1)


FORMULAS: dict[str, Weigh] = {
    "grad-cam": lambda maps, gradient: (gradient.mean((2, 3), keepdim=True) * maps).sum(1),
    "grad-cam++": _higher_derivatives,
    "hires-cam": lambda maps, gradient: (gradient * maps).sum(1),
    "layer-cam": lambda maps, gradient: (F.relu(gradient) * maps).sum(1),
}


def textbook(network: Network, inputs: Tensor, targets: Tensor, weigh: Weigh) -> Tensor:
    """Forward with gradients for all weights, and a full backward pass."""
    maps = network.features(inputs)
    maps.retain_grad()
    torch.autograd.backward(network.head(maps).gather(1, targets[:, None]).sum())
    assert maps.grad is not None
    heat = weigh(maps, maps.grad).detach()
    network.zero_grad()
    return normalised(heat, network.image_size)


def time_methods(
    name: str, images: int, repetitions: int, slow_images: int, methods: tuple[str, ...]
) -> dict[str, float]:
    """Forward passes that a map costs by each method, and other packages' time over ours."""
    figures: dict[str, float] = {}
    network, all_inputs, all_targets = network_and_batch(name, images, 224)
    for method in methods:
        if method not in method_names(network):
            continue
        count, times = (slow_images, 1) if method in SLOW else (images, repetitions)
        inputs, targets = all_inputs[:count], all_targets[:count]

        def forward(inputs: Tensor = inputs) -> None:
            with torch.no_grad():
                network(inputs)

        def explain(method: str = method, inputs: Tensor = inputs, targets: Tensor = targets) -> Tensor:
            return METHODS[method](network, inputs, targets).maps

        wall, processor = ratios(forward, explain, times)
        figures[f"{name}_{method}_forward_passes"] = wall
        figures[f"{name}_{method}_forward_passes_processor_time"] = processor
        for package, (offered, make) in PACKAGES.items():
            if method not in offered or not importable(package):
                continue
            peer = make(method, network, inputs, targets)
            figures[f"{name}_{method}_{package}_time_over_own"], _ = ratios(explain, peer, max(1, times // 3))
            difference = (peer() - explain()).abs().max()
            figures[f"{name}_{method}_{package}_largest_difference"] = float(difference)
    return figures


def importable(package: str) -> bool:
    """Whether a package is there to be compared with."""
    try:
        importlib.import_module(package)
    # A package whose own dependencies are broken fails in other ways than by being absent.
    except (ImportError, RuntimeError):
        return False
    return True


def main() -> int:
    """Measure, write, and fail where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--slow-images", type=int, default=2, help="for methods of many passes")
    parser.add_argument("--methods", nargs="*", default=method_names(), help="all by default")
    arguments = parser.parse_args()
    for package in PACKAGES:
        if not importable(package):
            print(f"{package}: not measured, it cannot be imported")

    figures: dict[str, float] = {}
    for name in TIMED:
        figures |= time_methods(
            name, arguments.images, arguments.repetitions, arguments.slow_images, tuple(arguments.methods)
        )
    for name in network_names():
        network, inputs, targets = network_and_batch(name, 4, 224)
        for method, weigh in FORMULAS.items():
            if method in method_names(network):
                expected = textbook(network, inputs, targets, weigh)
                difference = (METHODS[method](network, inputs, targets).maps - expected).abs().max()
                figures[f"{name}_{method}_difference_from_textbook"] = float(difference)
    write_figures(arguments.json, figures)

    missed = [name for name, value in figures.items() if name.endswith("textbook") and value > BAR_DIFFERENCE]
    barred = [f"efdl-cnn_{method}_forward_passes" for method in BARRED]
    missed += [name for name in barred if figures.get(name, 0) > BAR_PASSES]
    print("bars missed: " + ", ".join(missed) if missed else "all bars held")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
