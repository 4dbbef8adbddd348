"""The trained network that a command is given, held to the preparation of images that it learnt with."""

from __future__ import annotations

from pathlib import Path

from fedlens.imaging.preprocess import digest
from fedlens.models.checkpoint import Contract, load_checkpoint, read_contract
from fedlens.models.network import Network
from fedlens.run_folder import find_model


def load_trained(run: Path, arm: str) -> tuple[Path, Network, Contract]:
    """Checkpoint folder, network in evaluation mode on the CPU, and contract.

    Args:
        run: Output folder of a run or comparison, one arm's folder, or a checkpoint folder.
        arm: Whose network to take where ``run`` holds several.

    Raises:
        HistoryError: ``run`` holds no such network.
        CheckpointError: Its files are torn, or this version prepares images otherwise: the network would be
            shown images unlike those it learnt from.
    """
    folder = find_model(run, arm)
    network, contract = load_checkpoint(folder, preprocess_digest=digest(read_contract(folder).preprocess))
    return folder, network, contract
