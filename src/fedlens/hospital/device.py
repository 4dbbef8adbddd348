"""Where and in which precision a network is trained."""

from __future__ import annotations

import contextlib

import torch

from fedlens.errors import SettingsError
from fedlens.models.registry import preferred_precision
from fedlens.study import TrainingSettings


def choose_device(wanted: str) -> torch.device:
    """``auto`` takes CUDA, then MPS, then CPU; a named device must be there.

    Raises:
        SettingsError: The named device is not on this machine.
    """
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        return torch.device(next(name for name, there in present.items() if there))
    if not present[wanted]:
        raise SettingsError(
            f"training.device = {wanted!r}, but this machine has none.",
            fix='Set training.device = "auto".',
        )
    return torch.device(wanted)


def autocast(
    settings: TrainingSettings, network: str, device: torch.device
) -> contextlib.AbstractContextManager[object]:
    """The autocast context for the forward pass.

    ``auto`` is bfloat16 where it pays (measured in ``benchmarks/train.py``): 1.6 times plain float32 and
    more for ordinary convolutions on CPU, a loss for depthwise ones.
    """
    precision = settings.precision
    if precision == "auto":
        precision = "float32" if device.type == "mps" else preferred_precision(network)
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
