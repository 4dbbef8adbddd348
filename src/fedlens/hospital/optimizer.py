"""Optimisers: Adam as in the paper (section 5), or Muon for the matrices and Adam for the rest.

Muon (Jordan 2024) makes a matrix's momentum orthogonal before it steps along it, so that all directions
of a layer learn equally fast. Where the number of passes is small it learns far more from each
(docs/log.md). A convolution counts as the matrix of its filters. The first and the last matrix, which
meet pixels and classes, stay with Adam, as its authors advise.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fedlens.study import TrainingSettings

Moments = dict[int, dict[str, Tensor]]


class Optimizer:
    """Steps all weights of a network; decay is decoupled (AdamW), and biases and norms never decay.

    Args:
        network: In its final place and memory layout.
        settings: ``optimizer``, ``learning_rate`` and ``weight_decay`` are read.
    """

    def __init__(self, network: nn.Module, settings: TrainingSettings) -> None:
        weights = list(network.parameters())
        self._matrices = hidden_matrices(weights) if settings.optimizer == "muon" else []
        # Muon takes matrices only: these share the filters' memory, and get their gradients before a step.
        self._views = [nn.Parameter(as_matrix(weight.detach(), weight)) for weight in self._matrices]
        chosen = {id(weight) for weight in self._matrices}
        rest = [weight for weight in weights if id(weight) not in chosen]
        groups = [
            {"params": [weight for weight in rest if weight.ndim > 1], "weight_decay": settings.weight_decay},
            {"params": [weight for weight in rest if weight.ndim <= 1], "weight_decay": 0.0},
        ]
        rate, fused = settings.learning_rate, weights[0].device.type != "mps"
        self._parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=rate, fused=fused)]
        if self._views:
            decay = settings.weight_decay
            # Scaled to the size of Adam's steps, so that one learning rate suits both.
            self._parts.append(
                torch.optim.Muon(self._views, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
            )
        self._weights = weights

    def set_learning_rate(self, rate: float) -> None:
        """For the steps from now on."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = rate

    def zero_grad(self) -> None:
        """Forget the gradients of all weights."""
        for weight in self._weights:
            weight.grad = None

    def step(self) -> None:
        """Step along the weights' gradients."""
        for weight, view in zip(self._matrices, self._views, strict=True):
            view.grad = None if weight.grad is None else as_matrix(weight.grad, weight)
        for part in self._parts:
            part.step()

    def moments(self) -> Moments:
        """All moments by a running number that does not change between processes."""
        return {
            self._start(part) + index: values
            for part in self._parts
            for index, values in part.state_dict()["state"].items()
        }

    def restore(self, moments: Moments) -> None:
        """Take over :meth:`moments` of another process's optimiser of the same network."""
        for part in self._parts:
            start = self._start(part)
            count = sum(len(group["params"]) for group in part.param_groups)
            own = {index - start: values for index, values in moments.items() if 0 <= index - start < count}
            content: dict[str, Any] = part.state_dict()
            part.load_state_dict({**content, "state": own})

    def _start(self, part: torch.optim.Optimizer) -> int:
        """Number of the part's first weight among those of all parts."""
        before = self._parts[: self._parts.index(part)]
        return sum(len(group["params"]) for other in before for group in other.param_groups)


def hidden_matrices(weights: list[nn.Parameter]) -> list[nn.Parameter]:
    """Weights of linear and convolution layers but the first and last; depthwise ones do not count."""
    matrices = [weight for weight in weights if weight.ndim in (2, 4) and weight.shape[1] > 1]
    return matrices[1:-1]


def as_matrix(tensor: Tensor, weight: Tensor) -> Tensor:
    """A weight (out, in, h, w) or (out, in), or its gradient, as a matrix of one row for each output.

    Columns are in the order of the weight's memory, so that the weight's own matrix shares it; a gradient of
    another layout is copied into that order.
    """
    if weight.ndim == 2 or weight.is_contiguous():
        return tensor.flatten(1)
    return tensor.permute(0, 2, 3, 1).flatten(1)
