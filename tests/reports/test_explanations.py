from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from fedlens.errors import DataError, HistoryError
from fedlens.reports.explanations import load_explanations

from .conftest import fake_explanations


def test_what_was_saved_is_read_again(tmp_path: Path) -> None:
    values = fake_explanations("federated").values
    values.save(tmp_path / "explanations.parquet")
    found = load_explanations(tmp_path / "explanations.parquet")
    for name in ("image_ids", "hospitals", "sources", "groups", "true"):
        assert np.array_equal(getattr(found, name), getattr(values, name))
    assert list(found.columns) == list(values.columns)
    for name, column in values.columns.items():
        assert np.array_equal(found.columns[name], column, equal_nan=True)
    assert (found.method, found.weights) == (values.method, values.weights)


def test_missing_and_torn_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match=r"No explanations\.parquet"):
        load_explanations(tmp_path / "explanations.parquet")
    (tmp_path / "explanations.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(HistoryError, match=r"Cannot read .*explanations\.parquet"):
        load_explanations(tmp_path / "explanations.parquet")


def test_columns_of_another_length_are_refused() -> None:
    values = fake_explanations("federated").values
    with pytest.raises(DataError, match="values of energy"):
        dataclasses.replace(values, columns={"energy": np.zeros(3)})
