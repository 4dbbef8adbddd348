"""What a hospital keeps at home between rounds: optimiser moments and personal arrays.

The state after round ``r`` is on disk before the update of round ``r`` is sent, and the newest
earlier one is kept beside it. Whenever either side dies, round ``r`` can be repeated from that and
gives the same update.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fedlens.errors import HistoryError
from fedlens.files import write_bytes
from fedlens.hospital.optimizer import Moments, Optimizer

_OPTIMIZER = "optimizer."
_PERSONAL = "personal."


def save_state(
    folder: Path, round_number: int, optimizer: Optimizer | None, personal: dict[str, Tensor]
) -> None:
    """Write the state after a round; of earlier ones only the newest is kept, to repeat the round from."""
    arrays = {_PERSONAL + name: array for name, array in personal.items()}
    if optimizer is not None:
        for index, moments in optimizer.moments().items():
            arrays |= {f"{_OPTIMIZER}{index}.{name}": value for name, value in moments.items()}
    # Not by save_file: of a full disk its error says so in words only.
    content = save({name: array.detach().cpu().contiguous() for name, array in arrays.items()})
    # Moments tell as much about the images as an update does.
    write_bytes(_path(folder, round_number), content, mode=0o600)
    for number in _numbers(folder, below=round_number)[:-1]:
        _path(folder, number).unlink()


def load_state(folder: Path, round_number: int, optimizer: Optimizer | None) -> dict[str, Tensor]:
    """Put the moments after a round back into ``optimizer``; returns the personal arrays.

    A hospital that sat out the round before has an older state, which is used then; without any,
    the optimiser stays fresh.

    Raises:
        HistoryError: The state file is torn.
    """
    usable = _numbers(folder, below=round_number + 1)
    if not usable:
        return {}
    path = _path(folder, usable[-1])
    wanted = (_PERSONAL,) if optimizer is None else (_PERSONAL, _OPTIMIZER)
    try:
        # Moments are most of the file: who needs none does not read them.
        with safe_open(path, framework="pt") as stream:
            arrays = {name: stream.get_tensor(name) for name in stream.keys() if name.startswith(wanted)}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise HistoryError(
            f"Cannot read the hospital state {path}: {error}.", fix="Remove the run folder and start again."
        ) from error
    if optimizer is not None:
        _restore(optimizer, arrays)
    return {
        name.removeprefix(_PERSONAL): array for name, array in arrays.items() if name.startswith(_PERSONAL)
    }


def _restore(optimizer: Optimizer, arrays: dict[str, Tensor]) -> None:
    moments: Moments = {}
    for name, array in arrays.items():
        if name.startswith(_OPTIMIZER):
            index, key = name.removeprefix(_OPTIMIZER).split(".", 1)
            moments.setdefault(int(index), {})[key] = array
    if moments:
        optimizer.restore(moments)


def _numbers(folder: Path, *, below: int) -> list[int]:
    """Rounds before ``below`` that have a state, ascending."""
    numbers = [int(path.stem.removeprefix("state-")) for path in folder.glob("state-*.safetensors")]
    return sorted(number for number in numbers if number < below)


def _path(folder: Path, round_number: int) -> Path:
    return folder / f"state-{round_number:05d}.safetensors"
