"""The model card of a run folder: what is there is in it, and what is not there is said to be missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import fedlens
from fedlens import describing
from fedlens.cli.main import app
from fedlens.describing import write_card
from fedlens.errors import HistoryError
from fedlens.explanation_measuring import measure_explanations
from fedlens.files import write_json
from fedlens.hospital.evaluation import predict
from fedlens.models.checkpoint import load_checkpoint
from fedlens.preparation import PreparedStudy, prepare
from fedlens.reports.predictions import PREDICTIONS_NAME, Predictions
from fedlens.run_folder import kept_study
from tests.untrained_run import make_run

from .reports.conftest import Page, flat


def _predicted(prepared: PreparedStudy, folder: Path) -> Predictions:
    """As an arm leaves them: hospital by hospital."""
    network, _ = load_checkpoint(folder)
    parts = [prepared.images("test", hospital) for hospital in prepared.hospitals]
    records = [record for images in parts for record in images.records]
    return Predictions(
        image_ids=np.array([record.image_id for record in records]),
        hospitals=np.array([record.hospital for record in records]),
        sources=np.array([record.source for record in records]),
        groups=np.array([record.cluster for record in records]),
        true=np.concatenate([images.labels for images in parts]),
        probabilities=np.concatenate([predict(network, images) for images in parts]),
        classes=prepared.classes,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: predictions, measured maps and fitted advice."""
    run = make_run(tmp_path_factory.mktemp("study"))
    study = kept_study(run)
    assert study is not None
    prepared = prepare(study)
    arm = run / "seed-0" / "federated"
    _predicted(prepared, arm / "model").save(arm / PREDICTIONS_NAME)
    measure_explanations(run, prepared)
    fedlens.predict_images(run, [next((run.parent / "phantoms" / "mri").iterdir())])
    write_json(run / "export" / "model.json", {"onnx_sha256": "ab" * 32})
    return run


def test_page_and_text_hold_everything_that_the_folder_has(run: Path) -> None:
    card = write_card(run)

    page = Page(card.page.read_text())
    text = card.text.read_text()
    assert card.page.parent == run and page.open == []
    for content in (flat(page.text), flat(text).replace("\\", "")):
        assert "Not a medical device" in content
        assert "A temperature of" in content and "Operating points" in content
        assert "Pointing game" in content and "Hot in the middle" in content
        assert "ab" * 32 in content
        for hospital in ("North", "South", "East", "West"):
            assert hospital in content
    contract = json.loads((run / "seed-0/federated/model/contract.json").read_text())
    assert contract["weights_sha256"] in text and contract["fingerprint"] in text
    assert str(run.parent) not in text and str(run.parent) not in card.page.read_text()


def test_counts_are_those_of_the_manifest(run: Path) -> None:
    study = kept_study(run)
    assert study is not None
    manifest = prepare(study).manifest
    rows = {tuple(row[:1]): row for row in Page(write_card(run).page.read_text()).rows if row}

    total = next(row for row in Page(write_card(run).page.read_text()).rows if row and row[0] == "All")
    splits = [sum(record.split == name for record in manifest) for name in ("train", "validation", "test")]
    assert total == ["All", *(f"{count:,}" for count in (*splits, len(manifest)))]
    assert ("North",) in rows


def test_what_is_missing_is_said(run: Path, tmp_path: Path) -> None:
    """Another machine: no images, no maps, no advice, no export."""
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    arm = copy / "seed-0" / "federated"
    for name in ("explanations.parquet", "model/decision.json", "model/decision.safetensors"):
        (arm / name).unlink()
    (copy / "model-card.md").unlink(missing_ok=True)
    settings = json.loads((copy / "study.json").read_text())
    settings["data"]["folder"] = str(tmp_path / "gone")
    (copy / "study.json").write_text(json.dumps(settings))

    text = flat(write_card(copy, out=tmp_path / "card").text.read_text())

    assert "no longer at hand" in text and "No map of this network was measured" in text
    assert "no temperature was fitted" in text
    assert not (copy / "model-card.md").exists()


def test_changed_images_are_refused(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    write_json(copy / "images.json", {"images": 3, "digest": "0" * 64})

    with pytest.raises(HistoryError, match="other images"):
        write_card(copy)


def test_how_training_minded_maps_follows_from_the_contract(run: Path) -> None:
    """The federated arm of a comparison trains without, the same arm of a plain run as the study says."""
    study = kept_study(run)
    assert study is not None
    explained = study.model_copy(
        update={"explanation": study.explanation.model_copy(update={"outline_loss": 0.3})}
    )
    _, contract = load_checkpoint(run / "seed-0" / "federated" / "model")

    for trained, expected in (
        (explained, {"outline_loss": 0.3}),
        (study, {}),
        (study.model_copy(update={"seed": 7}), None),
    ):
        signed = contract.model_copy(update={"study": trained.digest()})
        assert describing._minded(explained, "federated", signed, 0) == expected
    assert describing._minded(explained, "central", contract, 0) == {}


def test_other_arms_and_folders_are_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match=r"'central'.*federated"):
        write_card(run, arm="central")
    with pytest.raises(HistoryError, match=r"No study\.json"):
        write_card(tmp_path)


def test_a_run_between_machines_is_told_apart(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(describing, "holds_only_a_history", lambda folder: True)

    with pytest.raises(HistoryError, match="predictions stayed at the hospitals"):
        write_card(run)


def test_the_command_says_what_to_open(run: Path, tmp_path: Path) -> None:
    result = CliRunner(env={"COLUMNS": "250"}).invoke(
        app, ["card", str(run), "--out", str(tmp_path), "--json"]
    )

    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "page": str(tmp_path / "model-card.html"),
        "text": str(tmp_path / "model-card.md"),
    }
