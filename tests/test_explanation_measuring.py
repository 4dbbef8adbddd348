"""Whose network explains a hospital's test images."""

from __future__ import annotations

from pathlib import Path

from fedlens.explanation_measuring import model_of


def test_a_hospitals_own_network_goes_before_the_arms(tmp_path: Path) -> None:
    (tmp_path / "hospitals" / "A" / "model").mkdir(parents=True)
    assert model_of(tmp_path, "A") == tmp_path / "hospitals" / "A" / "model"
    assert model_of(tmp_path, "B") == tmp_path / "model"
