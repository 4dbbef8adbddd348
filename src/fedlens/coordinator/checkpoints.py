"""Checkpoints of a run: after every round one file, whole or not there, from which it can go on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedlens.coordinator.history import HISTORY_NAME
from fedlens.errors import HistoryError
from fedlens.files import remove_parts, write_bytes
from fedlens.protocol.messages import Parameters

_FOLDER = "rounds"
_ARRAYS = ("parameters", "strategy", "gathering")


@dataclass(frozen=True)
class RunState:
    """All that the coordinator must know to go on after a round.

    Attributes:
        study: Digest of the study's settings.
        fingerprint: Architecture fingerprint of the network.
        round: Rounds done; 0 for the state before the first.
        events: Events in the history after that round.
        best_round: The round with the lowest validation loss; the last one while there is none.
        best_loss: That loss, or None.
        waited: Evaluations since.
        parameters: The global model.
        strategy: The strategy's moments.
        gathering: What sealing knows of the rounds before; empty in an unsealed study.
    """

    study: str
    fingerprint: str
    round: int
    events: int
    best_round: int
    best_loss: float | None
    waited: int
    parameters: Parameters = field(repr=False)
    strategy: Parameters = field(repr=False)
    gathering: Parameters = field(repr=False)


def write_checkpoint(folder: Path, state: RunState) -> Path:
    """Write the state after a round; of older files the one before and the best are kept."""
    arrays = {f"{kind}/{name}": array for kind in _ARRAYS for name, array in getattr(state, kind).items()}
    numbers = {entry.name: getattr(state, entry.name) for entry in fields(state) if entry.name not in _ARRAYS}
    path = checkpoint_path(folder, state.round)
    write_bytes(path, save(arrays, {"state": json.dumps(numbers, sort_keys=True)}))
    kept = {state.round, state.round - 1, state.best_round}
    for number, old in _checkpoints(folder).items():
        if number not in kept:
            old.unlink()
    return path


def read_checkpoint(path: Path) -> RunState:
    """The state in a checkpoint.

    Raises:
        HistoryError: The file is missing, damaged, or not a checkpoint of a run.
    """
    try:
        with safe_open(path, framework="numpy") as stream:
            numbers: dict[str, Any] = json.loads(stream.metadata()["state"])
            arrays = {name: stream.get_tensor(name) for name in sorted(stream.keys())}
        for kind in _ARRAYS:
            prefix = f"{kind}/"
            numbers[kind] = {
                name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)
            }
        return RunState(**numbers)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise HistoryError(
            f"Cannot read the checkpoint {path}: {error}.",
            why="It is damaged or was not written by FedLens.",
            fix="Remove it to go on from the round before, or choose another output.",
        ) from error


def latest(folder: Path) -> Path | None:
    """The run folder's checkpoint of the highest round, or None; half-written files do not count."""
    found = _checkpoints(folder)
    return found[max(found)] if found else None


def check_start(folder: Path, *, resume: bool) -> None:
    """Refuse to start a run in a folder that holds one, unless it is to go on.

    Raises:
        HistoryError: It does.
    """
    if not resume and (latest(folder) or (folder / HISTORY_NAME).exists()):
        raise HistoryError(
            f"{folder} already holds a run.",
            why="A new one would overwrite it.",
            fix="Go on with --resume, or choose another output.",
        )


def last_round(folder: Path) -> int:
    """Rounds done, by the checkpoints of a run folder; 0 where there is none."""
    return max(_checkpoints(folder), default=0)


def check_same_study(state: RunState, path: Path, *, study: str, fingerprint: str) -> None:
    """Refuse to go on from a checkpoint under other settings.

    Raises:
        HistoryError: Names the checkpoint and both digests.
    """
    for name, saved, given in (
        ("settings", state.study, study),
        ("network", state.fingerprint, fingerprint),
    ):
        if saved != given:
            raise HistoryError(
                f"{path} belongs to a study with another {name} digest: {saved[:12]}, not {given[:12]}.",
                why="Rounds with different settings do not make one run.",
                fix="Put the study file back as it was, or choose another output.",
            )


def advice_folder(folder: Path) -> Path:
    """Where a run folder keeps the advice for the network that the run ends with."""
    return folder / "advice"


def checkpoint_path(folder: Path, round_number: int) -> Path:
    """Where the state after a round is kept."""
    return folder / _FOLDER / f"round-{round_number:04d}.safetensors"


def remove_torn(folder: Path) -> None:
    """Remove half-written files of a coordinator that was killed; none of them counts as a checkpoint."""
    for place in (folder, folder / _FOLDER, advice_folder(folder)):
        remove_parts(place)


def _checkpoints(folder: Path) -> dict[int, Path]:
    paths = (folder / _FOLDER).glob("round-*.safetensors")
    return {int(path.stem.removeprefix("round-")): path for path in paths}
