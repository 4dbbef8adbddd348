"""A network's state as named numpy arrays, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fedlens.errors import ModelError
from fedlens.models.network import Network

Array = npt.NDArray[Any]
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.modules.instancenorm._InstanceNorm)


def to_parameters(network: Network) -> dict[str, Array]:
    """Copies of all weights and buffers, contiguous, in the state's order and dtypes.

    Shapes are the state's, ``()`` for the step counters of batch norm. Later training does not
    change the copies.
    """
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in network.state_dict().items()}


def from_parameters(network: Network, parameters: Mapping[str, Array], *, strict: bool = True) -> None:
    """Copy arrays into the network in place, on its own device and in its own memory layout.

    Args:
        network: Overwritten, wholly or not at all.
        parameters: Arrays by state name; read only.
        strict: Every state name must be given; else those left out keep their values.

    Raises:
        ModelError: A name is unknown or missing, or a shape or dtype differs; the network is then
            unchanged.
    """
    state = network.state_dict()
    unknown = sorted(parameters.keys() - state.keys())
    missing = sorted(state.keys() - parameters.keys()) if strict else []
    if unknown or missing:
        named = [f"unknown {name}" for name in unknown[:3]] + [f"missing {name}" for name in missing[:3]]
        raise ModelError(
            f"The weights do not belong to {network.name}: {', '.join(named)}.",
            why=f"{len(unknown)} names are unknown and {len(missing)} missing.",
            fix="Use weights of the same model.name.",
        )
    copies = {name: torch.tensor(np.asarray(array)) for name, array in parameters.items()}
    for name, copy in copies.items():
        if copy.shape != state[name].shape or copy.dtype != state[name].dtype:
            raise ModelError(
                f"Weight {name} is {copy.dtype} {tuple(copy.shape)}.",
                why=f"{network.name} holds {state[name].dtype} {tuple(state[name].shape)} there.",
                fix="Use weights of the same model.name, classes, channels and image size.",
            )
    with torch.no_grad():
        for name, copy in copies.items():
            state[name].copy_(copy)


def buffer_names(network: Network) -> frozenset[str]:
    """State names that no gradient reaches: running means and variances, step counters."""
    return frozenset(network.state_dict()) - {name for name, _ in network.named_parameters()}


def norm_names(network: Network) -> frozenset[str]:
    """State names of normalisation layers, weights and buffers alike (what FedBN keeps at home)."""
    prefixes = [name for name, module in network.named_modules() if isinstance(module, _NORMS)]
    return frozenset(
        name for name in network.state_dict() if any(name.startswith(f"{prefix}.") for prefix in prefixes)
    )
