"""Where an arm of a study lies in a run folder: one rule for a run, a coordinator and a lead's copy."""

from __future__ import annotations

from pathlib import Path

from fedlens.study import Study

FEDERATED = "federated"


def arm_path(folder: Path, study: Study, arm: str = FEDERATED) -> Path:
    """``<run folder>/seed-<seed>/<arm>``: history, checkpoints, network and predictions of one arm."""
    return folder / f"seed-{study.seed}" / arm
