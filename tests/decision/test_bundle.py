"""Fitting on one machine, and what is kept beside a checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.untrained_run import make_run

from fedlens.decision.bundle import ARRAYS_NAME, FACTS_NAME, DecisionBundle, has_bundle, load_bundle
from fedlens.decision.fitting import fit_decisions
from fedlens.decision.settings import DecisionSettings
from fedlens.errors import CheckpointError, HistoryError
from fedlens.hospital.decision import image_outputs
from fedlens.models.checkpoint import load_checkpoint, read_contract
from fedlens.preparation import PreparedStudy, prepare
from fedlens.reports.predictions import Predictions
from fedlens.run_folder import kept_study


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def prepared(run: Path) -> PreparedStudy:
    study = kept_study(run)
    assert study is not None
    return prepare(study)


@pytest.fixture(scope="module")
def bundle(run: Path, prepared: PreparedStudy) -> DecisionBundle:
    return fit_decisions(run / "seed-0" / "federated" / "model", prepared)


def loaded(folder: Path) -> DecisionBundle:
    contract = read_contract(folder)
    return load_bundle(folder, weights_sha256=contract.weights_sha256, classes=contract.classes)


def test_all_hospitals_and_no_test_image_are_in_it(bundle: DecisionBundle, prepared: PreparedStudy) -> None:
    train, validation = prepared.images("train"), prepared.images("validation")
    assert sum(bundle.facts.training_images.values()) == len(train)
    assert set(bundle.facts.training_images) == {"xray", "mri", "dermoscopy"}
    assert bundle.facts.validation_images == len(validation) == bundle.scores.lac.sum()
    assert bundle.facts.hospitals == 4
    assert bundle.scores.certainty.sum() == len(validation)
    assert (bundle.scores.positives + bundle.scores.negatives).sum() == len(validation) * 6


def test_by_hospital_is_as_all_at_once(
    run: Path, bundle: DecisionBundle, prepared: PreparedStudy, tmp_path: Path
) -> None:
    pooled = PreparedStudy(prepared.study, prepared.manifest, prepared.pixels, prepared.classes, ("",))
    at_once = fit_decisions(run / "seed-0" / "federated" / "model", pooled)
    assert at_once.facts == bundle.facts.model_copy(update={"hospitals": 1})
    numbers = bundle.statistics.numbers() | bundle.scores.numbers()
    for name, array in (at_once.statistics.numbers() | at_once.scores.numbers()).items():
        np.testing.assert_array_equal(array, numbers[name])


def test_a_network_of_one_hospital_is_fitted_on_its_images(
    run: Path, prepared: PreparedStudy, tmp_path: Path
) -> None:
    name = prepared.hospitals[1]
    for place in (f"federated/hospitals/{name}/model", f"local-{name}/model"):
        folder = tmp_path / place
        shutil.copytree(run / "seed-0" / "federated" / "model", folder)
        found = fit_decisions(folder, prepared)
        assert found.facts.hospitals == 1
        assert found.facts.validation_images == len(prepared.images("validation", name))


@pytest.mark.parametrize("place", ["model", "hospitals/A/model"])
def test_images_that_were_split_anew_are_refused(
    run: Path, prepared: PreparedStudy, tmp_path: Path, place: str
) -> None:
    folder = tmp_path / "federated" / place
    shutil.copytree(run / "seed-0" / "federated" / "model", folder)
    tests = prepared.images("test")
    names = np.array([record.image_id for record in tests.records])
    chances = np.full((len(names), len(prepared.classes)), 1 / len(prepared.classes), np.float32)
    tested = Predictions(names, names, names, names, tests.labels, chances, prepared.classes)
    tested.save(tmp_path / "federated" / "predictions.parquet")
    fit_decisions(folder, prepared)

    moved = prepared.study.data.model_copy(update={"split_seed": 1})
    anew = prepare(prepared.study.model_copy(update={"data": moved}))
    with pytest.raises(HistoryError, match="tested on other images"):
        fit_decisions(folder, anew)


def test_written_and_read_again_it_gives_the_same_advice(
    run: Path, bundle: DecisionBundle, prepared: PreparedStudy
) -> None:
    folder = run / "seed-0" / "federated" / "model"
    bundle.save(folder)
    again = loaded(folder)
    network, _ = load_checkpoint(folder)
    found = image_outputs(network, prepared.images("test"))
    for settings in (None, DecisionSettings(score="aps", per_class=True, coverage=0.8)):
        mine, theirs = bundle.rules(settings), again.rules(settings)
        assert mine.judge(found.log_p, found.features) == theirs.judge(found.log_p, found.features)
    assert not list(folder.glob("*.pkl")) and again.facts.version


@pytest.mark.parametrize("harm", ["arrays", "facts", "weights", "gone"])
def test_what_does_not_belong_together_is_refused(
    run: Path, bundle: DecisionBundle, tmp_path: Path, harm: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(run / "seed-0" / "federated" / "model", folder)
    bundle.save(folder)
    assert has_bundle(folder)
    arrays, facts = folder / ARRAYS_NAME, folder / FACTS_NAME
    if harm == "arrays":
        arrays.write_bytes(arrays.read_bytes()[:-8])
    elif harm == "facts":
        facts.write_text(facts.read_text()[:40])
    elif harm == "gone":
        arrays.unlink()
    else:
        facts.write_text(facts.read_text().replace(bundle.facts.weights_sha256, "0" * 64))
    with pytest.raises(CheckpointError, match=r"remove decision\.json"):
        loaded(folder)
