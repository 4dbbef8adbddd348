from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from fedlens.errors import DataError, HistoryError
from fedlens.reports.predictions import Predictions, load_predictions

from .conftest import fake_predictions


def test_predictions_come_back_as_they_were_saved(tmp_path: Path) -> None:
    saved = fake_predictions()
    saved.save(tmp_path / "arm" / "predictions.parquet")
    loaded = load_predictions(tmp_path / "arm" / "predictions.parquet")
    for field in dataclasses.fields(Predictions):
        before, after = getattr(saved, field.name), getattr(loaded, field.name)
        assert np.array_equal(before, after)
        assert np.asarray(before).dtype.kind == np.asarray(after).dtype.kind
    assert loaded.probabilities.dtype == np.float32 and loaded.true.dtype == np.int64
    assert [path.name for path in (tmp_path / "arm").iterdir()] == ["predictions.parquet"]


def test_predictions_of_no_images_come_back(tmp_path: Path) -> None:
    none = fake_predictions().where(np.zeros(480, bool))
    none.save(tmp_path / "p.parquet")
    assert len(load_predictions(tmp_path / "p.parquet")) == 0


def test_missing_and_torn_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    with pytest.raises(HistoryError, match=r"No predictions\.parquet"):
        load_predictions(path)
    fake_predictions().save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(HistoryError, match=str(path)):
        load_predictions(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hospitals", np.array(["A"])),
        ("probabilities", np.zeros((480, 2), np.float32)),
        ("true", np.full(480, 6)),
    ],
)
def test_columns_that_do_not_fit_are_refused(field: str, value: np.ndarray) -> None:
    with pytest.raises(DataError):
        dataclasses.replace(fake_predictions(), **{field: value})


def test_parts_keep_the_rows_together() -> None:
    whole = fake_predictions()
    part = whole.of_hospital("B")
    rows = np.flatnonzero(whole.hospitals == "B")
    assert part.image_ids.tolist() == whole.image_ids[rows].tolist()
    assert np.array_equal(part.probabilities, whole.probabilities[rows])
    assert part.right.tolist() == (whole.predicted == whole.true)[rows].tolist()
    assert set(whole.of_source("chest_xray").sources) == {"chest_xray"}
