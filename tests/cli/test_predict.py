"""``fedlens predict``: table, CSV and JSON, and its exit codes."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.untrained_run import make_run
from typer.testing import CliRunner

from fedlens.cli.main import app

RUNNER = CliRunner(env={"COLUMNS": "250", "TERM": "dumb"})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("study"))


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """Two images and a file that is none."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    for number, shape in enumerate([(50, 50), (50, 50, 3)]):
        pixels = np.random.default_rng(number).integers(0, 256, shape, np.uint8)
        cv2.imwrite(str(folder / f"scan{number}.png"), pixels)
    (folder / "torn.png").write_bytes(b"\x89PNG")
    return folder


def test_a_table_for_people(run: Path, inbox: Path) -> None:
    result = RUNNER.invoke(app, ["predict", str(run), str(inbox)])
    assert result.exit_code == 0
    assert "scan0.png" in result.stdout and "unreadable" in result.stdout and "3 images: " in result.stdout
    assert "1 of 3 images cannot be read" in result.stderr and "torn.png" in result.stderr
    assert "torn" not in RUNNER.invoke(app, ["predict", str(run), str(inbox / "scan0.png")]).stderr


def test_csv_and_json_say_the_same(run: Path, inbox: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    as_csv = RUNNER.invoke(app, ["predict", str(run), str(inbox), "--format", "csv", "--out", str(out)])
    as_json = RUNNER.invoke(app, ["predict", str(run), str(inbox), "--format", "json"])
    assert as_csv.exit_code == as_json.exit_code == 0
    rows = list(csv.DictReader(io.StringIO(as_csv.stdout)))
    found = json.loads(as_json.stdout)
    assert found["calibrated"] and len(rows) == len(found["images"]) == 3
    for row, image in zip(rows, found["images"], strict=True):
        assert row["file"] == image["file"] and row["advice"] == (image["advice"] or "")
        assert row["set"] == "; ".join(image["set"]) and row["problem"] == (image["problem"] or "")
        for name, chance in image["probabilities"].items():
            assert float(row[f"p:{name}"]) == pytest.approx(chance, abs=1e-6)
    assert (out / "predictions.csv").read_text() == as_csv.stdout
    assert json.loads((out / "predictions.json").read_text()) == found


def test_maps_go_where_they_are_asked_for(run: Path, inbox: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["predict", str(run), str(inbox), "--maps", "--out", str(out), "--format", "json"]
    images = json.loads(RUNNER.invoke(app, arguments).stdout)["images"]
    assert [Path(image["map"]).name for image in images if image["map"]] == ["scan0.png", "scan1.png"]
    assert (out / "scan0.png").is_file() and (out / "scan0.json").is_file()


def test_nothing_readable_is_an_error(run: Path, inbox: Path) -> None:
    result = RUNNER.invoke(app, ["predict", str(run), str(inbox / "torn.png"), "--format", "csv"])
    assert result.exit_code == 3 and "None of 1 images can be read" in result.stderr
    refused = RUNNER.invoke(app, ["predict", str(run), str(inbox), "--modality", "photo"])
    assert refused.exit_code == 2 and "dermoscopy" in refused.stderr
    assert RUNNER.invoke(app, ["predict", str(inbox), str(inbox)]).exit_code == 6
