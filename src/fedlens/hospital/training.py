"""Local training: step 3 of EFDL section 3.1, with the settings of section 5."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedlens.errors import BadUpdateError
from fedlens.hospital.device import autocast
from fedlens.hospital.images import HospitalImages, Rows, batches
from fedlens.hospital.map_losses import MapLosses, Wishes
from fedlens.hospital.optimizer import Optimizer
from fedlens.imaging.augment import draw_warps, warp
from fedlens.imaging.preprocess import to_input
from fedlens.models.network import Network
from fedlens.progress import Progress, silent
from fedlens.study import AugmentSettings, TrainingSettings


@dataclass(frozen=True)
class LocalPlan:
    """One stretch of local training.

    Attributes:
        start: Passes over the images done before.
        end: Passes done after.
        batch_size: Images a step.
        learning_rate_start: At the first step.
        learning_rate_end: After the last step; linear between.
        seed: Of order, augmentation and dropout.
        proximal_mu: FedProx pull towards the weights at the start (Li et al. 2020, eq. 2).
    """

    start: float
    end: float
    batch_size: int
    learning_rate_start: float
    learning_rate_end: float
    seed: int
    proximal_mu: float = 0.0


@dataclass(frozen=True)
class TrainingTotals:
    """Sums over the images passed: cross entropy, right ones, their number; and wall seconds."""

    loss_sum: float
    correct: int
    seen: int
    seconds: float


def class_weights(labels: Rows, classes: int, settings: TrainingSettings) -> Tensor | None:
    """Inverse class frequency with mean 1 over the images; absent classes weigh 1."""
    if settings.class_weights == "none":
        return None
    counts = np.bincount(labels, minlength=classes)
    weights = np.where(counts > 0, len(labels) / (np.maximum(counts, 1) * (counts > 0).sum()), 1.0)
    return torch.tensor(weights, dtype=torch.float32)


def _augmented(
    images: HospitalImages,
    settings: AugmentSettings,
    plan: LocalPlan,
    map_losses: MapLosses | None,
    *,
    balanced: bool,
) -> Iterator[tuple[Tensor, Tensor, Wishes]]:
    """Augmented batches (float32 NCHW, int64, and wishes), each made while the one before is trained on."""
    rng = _generator(plan, len(images), 1)

    def make(indices: Rows) -> tuple[Tensor, Tensor, Wishes]:
        pixels = images.take(indices)
        warps = draw_warps(pixels.shape[1], settings, rng, images.free_rotation[indices])
        wishes = map_losses.wishes(indices, warps) if map_losses else Wishes()
        inputs = to_input(torch.from_numpy(warp(pixels, warps)))
        return inputs, torch.from_numpy(images.labels[indices]), wishes

    order = batches(
        images.labels,
        start=plan.start,
        end=plan.end,
        batch_size=plan.batch_size,
        seed=plan.seed,
        balanced=balanced,
    )
    with ThreadPoolExecutor(max_workers=1) as worker:
        waiting = worker.submit(make, next(order))
        for indices in order:
            ready = waiting.result()
            waiting = worker.submit(make, indices)
            yield ready
        yield waiting.result()


def train(
    network: Network,
    optimizer: Optimizer,
    images: HospitalImages,
    settings: TrainingSettings,
    augmentation: AugmentSettings,
    plan: LocalPlan,
    progress: Progress = silent,
    map_losses: MapLosses | None = None,
) -> TrainingTotals:
    """Train ``network`` in place over the plan's passes; the global random state is left as it was.

    ``progress`` is told after every batch; what it raises ends the training. ``map_losses`` are added to the
    cross entropy, and left out of the totals.

    Raises:
        BadUpdateError: The loss is no longer finite.
    """
    began = time.perf_counter()
    device = next(network.parameters()).device
    weights = class_weights(images.labels, network.classes, settings)
    criterion = nn.CrossEntropyLoss(
        weight=None if weights is None else weights.to(device), label_smoothing=settings.label_smoothing
    )
    anchor = [weight.detach().clone() for weight in network.parameters()] if plan.proximal_mu else []
    steps = max(1, round((round(plan.end * len(images)) - round(plan.start * len(images))) / plan.batch_size))

    def passed(inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Maps and logits of a batch."""
        with autocast(settings, network.name, device):
            maps = network.features(inputs)
            return maps, network.head(maps).float()

    loss_sum = torch.zeros((), device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    seen = 0
    network.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(_generator(plan, len(images), 2).integers(2**62)))
        balanced = settings.sampling == "balanced"
        stream = _augmented(images, augmentation, plan, map_losses, balanced=balanced)
        for step, (inputs, labels, wishes) in enumerate(stream):
            fraction = step / steps
            span = plan.learning_rate_end - plan.learning_rate_start
            optimizer.set_learning_rate(plan.learning_rate_start + fraction * span)
            inputs, labels = inputs.to(device), labels.to(device)
            optimizer.zero_grad()
            maps, logits = passed(inputs)
            loss = criterion(logits, labels)
            total = loss + _proximal(network, anchor, plan.proximal_mu)
            if map_losses:
                total = total + map_losses.loss(passed, inputs, maps, logits, labels, wishes.to(device))
            total.backward()
            optimizer.step()
            loss_sum += loss.detach() * len(labels)
            correct += (logits.detach().argmax(1) == labels).sum()
            seen += len(labels)
            progress("training", step + 1, steps)
    if not torch.isfinite(loss_sum):
        raise BadUpdateError(
            "The training loss is no longer finite.",
            fix="Lower training.learning_rate, or set training.warmup.",
        )
    return TrainingTotals(float(loss_sum), int(correct), seen, time.perf_counter() - began)


def _generator(plan: LocalPlan, images: int, purpose: int) -> np.random.Generator:
    """Randomness of one purpose at one place of the image stream."""
    return np.random.default_rng((plan.seed, purpose, round(plan.start * images)))


def _proximal(network: nn.Module, anchor: list[Tensor], mu: float) -> Tensor | float:
    if not anchor:
        return 0.0
    squares = [
        (weight - start).square().sum() for weight, start in zip(network.parameters(), anchor, strict=True)
    ]
    return 0.5 * mu * torch.stack(squares).sum()
