"""Flat figures of one benchmark run, with the machine they were measured on."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch


def environment() -> dict[str, str | int]:
    """What a reader needs to know about the machine."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "processor": model,
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def write_figures(path: Path | None, figures: Mapping[str, float]) -> None:
    """Print the figures, and write them as JSON where a path is given."""
    for name, value in figures.items():
        print(f"{name:55s} {value:.6g}")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {**figures, "environment": environment()}
        path.write_text(json.dumps(content, indent=2) + "\n")
