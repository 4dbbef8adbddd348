"""Does a map depend on what the network learnt? Model-parameter randomisation (Adebayo 2018).

A network's layers are given random weights, from the output down to the input (cascading) or each
alone (independent), and maps of the trained network are compared with those of the randomised one.
A map that stays the same while the layers that decide the class turn random shows the image and not
the network; guided backpropagation is the known case.

Similarity is Spearman's rank correlation of the two maps' pixels, -1..1; lower is better. A map that
is the same everywhere, or empty, resembles nothing (0). Random weights are drawn several times, since
one random network may light up, or shun, the same places by chance.

The verdict is of a method on this network and these images: where what matters is also what stands
out, as a bright square does, methods that only ask what stands out resemble themselves more.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from fedlens.errors import ExplanationError
from fedlens.explain.batch import MapBatch, evaluating
from fedlens.models.network import Network

Explain = Callable[[Network, Tensor, Tensor | None], MapBatch]

LIMIT = 0.5
"""Mean similarity over the cascade above which a method is broken."""


@dataclass(frozen=True)
class Randomisation:
    """How much of a method's maps outlives the network's weights.

    Attributes:
        layers: Groups of layers, from the output down.
        cascading: Mean similarity, -1..1, once this group and all nearer the output are random.
        independent: Mean similarity, -1..1, where this group alone is random.
        draws: Mean over the cascade of each random network alone.
        images: Maps compared; those that were empty for the trained network are left out.
    """

    layers: tuple[str, ...]
    cascading: tuple[float, ...]
    independent: tuple[float, ...]
    draws: tuple[float, ...]
    images: int

    @property
    def surviving(self) -> float:
        """Mean similarity over the cascade, -1..1."""
        return sum(self.cascading) / len(self.cascading)

    @property
    def broken(self) -> bool:
        """The maps outlive the weights: they must not be taken for what the network looked at."""
        return self.surviving > LIMIT

    def description(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "similarity": "Spearman's rank correlation of pixels",
            "limit": LIMIT,
            "broken": self.broken,
            "surviving": self.surviving,
            "draws": list(self.draws),
            "images": self.images,
            "layers": [
                {"layer": layer, "cascading": cascading, "independent": independent}
                for layer, cascading, independent in zip(
                    self.layers, self.cascading, self.independent, strict=True
                )
            ],
        }


def randomisation_test(
    explain: Explain,
    network: Network,
    inputs: Tensor,
    *,
    targets: Tensor | None = None,
    draws: int = 5,
    seed: int = 0,
) -> Randomisation:
    """Compare the maps of a trained network with those of ever more random copies of it.

    The network itself stays as it is, and so does the global random state. Batch norms of a
    randomised copy get statistics of ``inputs``: with those of the trained network, activations would
    vanish or explode, and maps differ for that reason alone.

    Args:
        explain: A method of ``fedlens.explain.methods``, or anything called alike.
        network: Trained.
        inputs: (N, channels, S, S) float32, two images or more.
        targets: (N,) int64; the class that the trained network predicts where None. Randomised
            networks explain the same classes.
        draws: Random networks to average over.
        seed: Of the random weights.

    Raises:
        ExplanationError: Fewer than two images, no draws, every map of the trained network empty; or
            as the method.
    """
    if len(inputs) < 2 or draws < 1:
        raise ExplanationError(
            f"{len(inputs)} images and {draws} draws do not make a randomisation test.",
            fix="Give at least two images and one draw.",
        )
    trained = explain(network, inputs, targets)
    kept = (~trained.empty).nonzero()[:, 0]
    if not len(kept):
        raise ExplanationError("Every map of the trained network is empty: there is nothing to compare.")
    inputs, targets = inputs[kept], trained.targets[kept]
    reference = _ranks(trained.maps[kept])
    groups = layer_groups(network)

    def similarity(changed: Network) -> float:
        _standardise(changed, inputs)
        return float(_correlations(reference, _ranks(explain(changed, inputs, targets).maps)).mean())

    cascading, independent = np.zeros((draws, len(groups))), np.zeros((draws, len(groups)))
    for draw in range(draws):
        falling = copy.deepcopy(network)
        for index, name in enumerate(groups):
            alone = copy.deepcopy(network)
            for changed in (falling, alone):
                randomise(changed, name, seed=seed + draw)
            cascading[draw, index] = similarity(falling)
            independent[draw, index] = similarity(alone)
    return Randomisation(
        layers=groups,
        cascading=tuple(cascading.mean(axis=0).tolist()),
        independent=tuple(independent.mean(axis=0).tolist()),
        draws=tuple(cascading.mean(axis=1).tolist()),
        images=len(kept),
    )


def layer_groups(network: Network) -> tuple[str, ...]:
    """Names of the modules that are randomised together, from the output down.

    Stages, blocks and single layers: sequences are taken apart, other modules with weights are not.
    """
    return tuple(name for name, _ in reversed(list(_groups(network, ""))))


def randomise(network: Network, name: str, *, seed: int) -> None:
    """Give one module of the network new weights in place, drawn as for a fresh network."""
    group = network.get_submodule(name)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        for module in group.modules():
            reset = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()
                continue
            # Bare parameters, such as position embeddings: drawn with the spread they have.
            for weight in module.parameters(recurse=False):
                weight.normal_(0, float(weight.std()) if weight.numel() > 1 else 1.0)


def _groups(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if type(child) is nn.Sequential:
            yield from _groups(child, f"{path}.")
        elif any(True for _ in child.parameters()):
            yield path, child


def _standardise(network: Network, inputs: Tensor) -> None:
    """Set batch norms' running statistics to those of the inputs, layer upon layer."""
    norms = [part for part in network.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    with evaluating(network), torch.no_grad():
        for norm in norms:
            norm.train()
            norm.momentum = 1.0
        network(inputs)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


def _ranks(maps: Tensor) -> npt.NDArray[np.float64]:
    """(N, S, S) maps to (N, S*S) ranks, centred; ties share theirs."""
    ranks = rankdata(maps.flatten(1).cpu().numpy(), axis=1)
    centred: npt.NDArray[np.float64] = ranks - ranks.mean(axis=1, keepdims=True)
    return centred


def _correlations(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    found: npt.NDArray[np.float64] = (a * b).sum(axis=1) / np.where(scale > 0, scale, 1.0)
    return found
