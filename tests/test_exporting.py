"""A run's network as files: checked against torch, with ranges from training images, and ready to predict."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import fedlens
from fedlens import exporting
from fedlens.cli.main import app
from fedlens.errors import HistoryError, ModelError, SettingsError
from fedlens.export.runtime import OnnxClassifier
from fedlens.exporting import Exported, export_run
from fedlens.models.checkpoint import load_checkpoint
from fedlens.preparation import prepare
from fedlens.run_folder import kept_study
from tests.untrained_run import make_run

RUNNER = CliRunner(env={"COLUMNS": "250", "TERM": "dumb"})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("study"), images=90)


@pytest.fixture(scope="module")
def written(run: Path) -> tuple[Exported, ...]:
    return export_run(run, int8=True, temperature=1.5, calibration_images=24)


def test_both_files_compute_what_torch_does(run: Path, written: tuple[Exported, ...]) -> None:
    exact, rounded = written

    assert [entry.path.name for entry in written] == ["model.onnx", "model-int8.onnx"]
    assert exact.path.parent == run / "export"
    assert exact.largest_difference < 1e-4 and exact.same_decisions == 1
    assert exact.accuracy == exact.torch_accuracy
    assert 0 < rounded.largest_difference < 0.5 and rounded.size < exact.size / 2
    study = kept_study(run)
    assert study is not None
    assert exact.images == rounded.images == len(prepare(study).images("validation"))


def test_ranges_come_from_training_images_alone(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[np.ndarray] = []

    def stop(model: object, pixels: np.ndarray, contract: object) -> None:
        asked.append(pixels)
        raise RuntimeError

    monkeypatch.setattr(exporting, "quantise", stop)
    with pytest.raises(RuntimeError):
        export_run(run, int8=True, out=tmp_path, calibration_images=10)

    study = kept_study(run)
    assert study is not None
    train = prepare(study).images("train")
    known = {image.tobytes() for image in train.take(np.arange(len(train)))}
    assert len(asked[0]) == 10 and {image.tobytes() for image in asked[0]} <= known


def test_the_description_says_what_the_file_holds(written: tuple[Exported, ...]) -> None:
    for entry in written:
        described = json.loads(entry.path.with_suffix(".json").read_bytes())
        contract = OnnxClassifier(entry.path).contract
        assert described["onnx_sha256"] == hashlib.sha256(entry.path.read_bytes()).hexdigest()
        assert described["contract"] == contract.model_dump(mode="json")
        assert described["compared"]["same_decisions"] == entry.same_decisions
        assert contract.precision == entry.precision and contract.temperature == 1.5
        assert contract.modalities == ("dermoscopy", "mri", "xray")
    assert contract.calibration_images == 24


def test_a_checkpoint_alone_is_enough_without_eight_bits(run: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(run / "seed-0" / "federated" / "model", tmp_path / "model"))

    (entry,) = export_run(model)

    assert entry.accuracy is None and entry.images > 0 and entry.path.parent == model / "export"
    contract = OnnxClassifier(entry.path).contract
    assert contract.modalities == () and contract.temperature == 1
    with pytest.raises(HistoryError, match=r"No study\.json.*without --int8"):
        export_run(model, int8=True)


def test_a_file_that_computes_something_else_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, _ = load_checkpoint(run / "seed-0" / "federated" / "model")
    real = exporting.torch_logits
    monkeypatch.setattr(exporting, "torch_logits", lambda *given: real(*given) + 0.01)

    with pytest.raises(ModelError, match=r"differ from torch's by 0\.0100"):
        export_run(run, out=tmp_path)
    assert network.classes == 6


def test_options_that_make_no_sense_are_refused(run: Path) -> None:
    with pytest.raises(SettingsError, match="temperature of 0"):
        export_run(run, temperature=0.0)
    with pytest.raises(SettingsError, match="calibration images"):
        export_run(run, int8=True, calibration_images=0)
    with pytest.raises(HistoryError, match="arm 'central'"):
        export_run(run, arm="central")


def test_the_command_exports_and_says_how_to_predict(run: Path, tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["export", str(run), "--onnx", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "100.0%" in result.stdout and "fedlens predict --onnx" in result.stdout

    nothing = RUNNER.invoke(app, ["export", str(run)])
    assert nothing.exit_code == 2 and "--onnx" in nothing.stderr


def test_the_command_predicts_without_torch(run: Path, written: tuple[Exported, ...]) -> None:
    images = run.parent / "phantoms" / "mri"
    program = (
        "import sys; from fedlens.cli.main import app; "
        f"app(['predict', '--onnx', {str(written[1].path)!r}, {str(images)!r}, '--modality', 'mri', "
        "'--format', 'csv'], standalone_mode=False); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    *lines, loaded = done.stdout.splitlines()
    rows = list(csv.DictReader(io.StringIO("\n".join(lines))))
    assert loaded == "False" and len(rows) == len(list(images.iterdir()))
    for row in rows:
        chances = {name[2:]: float(value) for name, value in row.items() if name.startswith("p:")}
        assert sum(chances.values()) == pytest.approx(1, abs=1e-5)
        assert row["likeliest"] == max(chances, key=chances.__getitem__)


def test_what_the_command_cannot_read_is_named(written: tuple[Exported, ...], tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(b"\x89PNG")
    out = tmp_path / "out"
    given = ["predict", "--onnx", str(written[0].path), str(tmp_path / "torn.png"), "--out", str(out)]

    result = RUNNER.invoke(app, given)

    assert result.exit_code == 3 and "None of 1 images can be read" in result.stderr
    assert json.loads((out / "predictions.json").read_bytes())["images"][0]["problem"]
    assert RUNNER.invoke(app, [*given, "--maps"]).exit_code == 2


def test_it_is_part_of_the_public_interface() -> None:
    assert fedlens.export_run is export_run
