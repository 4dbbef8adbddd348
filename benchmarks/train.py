"""Training throughput: the real loop against its own network on a ready tensor, and a plain loop.

Interleaved repetitions in one run, medians. 224 px, batch 32, 2 threads, unless told otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _figures import write_figures
from torch import Tensor, nn

from fedlens.hospital.device import autocast, choose_device
from fedlens.hospital.images import HospitalImages
from fedlens.hospital.optimizer import Optimizer
from fedlens.hospital.training import LocalPlan, train
from fedlens.models.network import Network
from fedlens.models.registry import build_network
from fedlens.study import AugmentSettings, ModelSettings, TrainingSettings

CLASSES = 11


def random_images(folder: Path, count: int, size: int) -> HospitalImages:
    """Memory-mapped prepared images of random pixels, as a hospital reads them."""
    rng = np.random.default_rng(0)
    path = folder / "pixels.npy"
    np.save(path, rng.integers(0, 256, (count, size, size, 3), np.uint8))
    return HospitalImages(
        pixels=np.load(path, mmap_mode="r"),
        rows=np.arange(count),
        labels=rng.integers(0, CLASSES, count),
        free_rotation=np.arange(count) % 2 == 0,
        records=(),
    )


def forward_backward(network: Network, inputs: Tensor, labels: Tensor, *, steps: int, fast: bool) -> None:
    """Forward and backward passes; ``fast`` as FedLens trains, else plain float32."""
    for _ in range(steps):
        _one_pass(network, inputs, labels, fast=fast)


def _one_pass(network: Network, inputs: Tensor, labels: Tensor, *, fast: bool) -> None:
    device = inputs.device
    context = autocast(TrainingSettings(), network.name, device) if fast else contextlib.nullcontext()
    with context:
        logits = network(inputs).float()
    torch.autograd.backward(nn.functional.cross_entropy(logits, labels))
    for weight in network.parameters():
        weight.grad = None


def seconds(work: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--network", default="efdl-cnn")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = choose_device("auto")
    count = options.batch * options.steps

    def fresh(memory: torch.memory_format) -> Network:
        network = build_network(
            ModelSettings(name=options.network), classes=CLASSES, channels=3, image_size=options.size, seed=0
        )
        return network.to(device, memory_format=memory)  # type: ignore[call-overload,no-any-return]

    fast, plain = fresh(torch.channels_last), fresh(torch.contiguous_format)
    ready = torch.randn(options.batch, 3, options.size, options.size, device=device)
    ready_fast = ready.to(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (options.batch,), device=device)
    settings = TrainingSettings()
    optimizer = Optimizer(fast, settings)
    plan = LocalPlan(0.0, 1.0, options.batch, 1e-4, 1e-4, seed=0)
    times: dict[str, list[float]] = {"loop": [], "ready": [], "plain": []}
    with tempfile.TemporaryDirectory() as folder:
        images = random_images(Path(folder), count, options.size)
        augmentation = AugmentSettings()
        for repetition in range(options.repetitions + 1):
            row = {
                "loop": seconds(lambda: train(fast, optimizer, images, settings, augmentation, plan)),
                "ready": seconds(
                    lambda: forward_backward(fast, ready_fast, labels, steps=options.steps, fast=True)
                ),
                "plain": seconds(
                    lambda: forward_backward(plain, ready, labels, steps=options.steps, fast=False)
                ),
            }
            if repetition:  # the first warms caches and allocators
                for name, value in row.items():
                    times[name].append(value)
    median = {name: float(np.median(values)) for name, values in times.items()}
    write_figures(
        options.json,
        {
            "loop_images_per_second": count / median["loop"],
            "ready_tensor_images_per_second": count / median["ready"],
            "plain_float32_nchw_images_per_second": count / median["plain"],
            "loop_over_ready_tensor": float(np.median(np.divide(times["ready"], times["loop"]))),
            "loop_over_plain_float32_nchw": float(np.median(np.divide(times["plain"], times["loop"]))),
            "size": options.size,
            "batch": options.batch,
        },
    )


if __name__ == "__main__":
    main()
