from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from tests.coordinator.fakes import initial_parameters

from fedlens.coordinator.checkpoints import RunState, latest, read_checkpoint, write_checkpoint
from fedlens.errors import HistoryError


def state(number: int, best: int = 0) -> RunState:
    return RunState(
        study="s",
        fingerprint="f",
        round=number,
        events=number + 1,
        best_round=best,
        best_loss=0.1 + 0.2 if best else None,
        waited=number - best,
        parameters=initial_parameters(),
        strategy={"first/conv.weight": np.full((3, 2), number, np.float32)},
        gathering={"range/conv.weight": np.array(0.5, np.float32), "images": np.array(number, np.int64)},
    )


def test_state_comes_back_to_the_bit(tmp_path: Path) -> None:
    written = state(3, best=2)
    read = read_checkpoint(write_checkpoint(tmp_path, written))
    for entry in dataclasses.fields(RunState):
        if entry.name not in ("parameters", "strategy"):
            assert getattr(read, entry.name) == getattr(written, entry.name)
    for kind in ("parameters", "strategy"):
        arrays, expected = getattr(read, kind), getattr(written, kind)
        assert arrays.keys() == expected.keys()
        for name, array in expected.items():
            assert arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
            np.testing.assert_array_equal(arrays[name], array)


def test_last_two_and_the_best_are_kept(tmp_path: Path) -> None:
    for number in range(12):
        write_checkpoint(tmp_path, state(number, best=min(number, 4)))
    kept = sorted(path.name for path in (tmp_path / "rounds").iterdir())
    assert kept == [f"round-{number:04d}.safetensors" for number in (4, 10, 11)]
    assert latest(tmp_path) == tmp_path / "rounds" / "round-0011.safetensors"


def test_rounds_beyond_four_digits_are_later(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, state(9999, best=9999))
    write_checkpoint(tmp_path, state(10000, best=9999))
    found = latest(tmp_path)
    assert found and read_checkpoint(found).round == 10000


def test_half_written_file_does_not_count(tmp_path: Path) -> None:
    assert latest(tmp_path) is None
    write_checkpoint(tmp_path, state(1))
    (tmp_path / "rounds" / ".round-0002.safetensors.x1y2.part").write_bytes(b"half")
    found = latest(tmp_path)
    assert found and found.name == "round-0001.safetensors"


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_damaged_checkpoint_is_named_with_the_mend(keep: int, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, state(1))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(HistoryError, match=r"round-0001\.safetensors.*Remove it"):
        read_checkpoint(path)
    with pytest.raises(HistoryError):
        read_checkpoint(tmp_path / "none.safetensors")
