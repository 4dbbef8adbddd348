from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fedlens.errors import HistoryError
from fedlens.hospital.optimizer import Optimizer
from fedlens.hospital.state import load_state, save_state
from fedlens.study import TrainingSettings

from .conftest import make_network


def stepped_optimizer(kind: Any = "adam") -> Optimizer:
    network = make_network()
    optimizer = Optimizer(network, TrainingSettings(optimizer=kind))
    network(torch.randn(4, 3, 32, 32)).sum().backward()
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("kind", ["adam", "muon"])
def test_moments_and_personal_arrays_come_back_to_the_bit(kind: Any, tmp_path: Path) -> None:
    optimizer, personal = stepped_optimizer(kind), {"norm.weight": torch.randn(4)}
    save_state(tmp_path, 3, optimizer, personal)
    fresh = Optimizer(make_network(), TrainingSettings(optimizer=kind))
    assert torch.equal(load_state(tmp_path, 3, fresh)["norm.weight"], personal["norm.weight"])
    before, after = optimizer.moments(), fresh.moments()
    assert before.keys() == after.keys() and len(before) == len(list(make_network().parameters()))
    assert all(torch.equal(before[i][name], after[i][name]) for i in before for name in before[i])


def test_a_hospital_that_sat_out_rounds_can_still_repeat_its_last_one(tmp_path: Path) -> None:
    for number in (1, 2, 6):
        save_state(tmp_path, number, None, {"mark": torch.tensor([number])})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "state-00002.safetensors",
        "state-00006.safetensors",
    ]
    assert load_state(tmp_path, 5, None)["mark"].item() == 2
    assert load_state(tmp_path, 6, None)["mark"].item() == 6


def test_without_a_state_the_optimiser_stays_fresh(tmp_path: Path) -> None:
    optimizer = Optimizer(make_network(), TrainingSettings())
    assert load_state(tmp_path, 4, optimizer) == {}
    assert not optimizer.moments()


def test_a_torn_state_is_named(tmp_path: Path) -> None:
    save_state(tmp_path, 1, stepped_optimizer(), {})
    path = tmp_path / "state-00001.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(HistoryError, match="state-00001"):
        load_state(tmp_path, 1, None)
