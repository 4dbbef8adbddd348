"""From drawn images to heat maps, through the public calls alone."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import fedlens
from fedlens.models.checkpoint import read_contract
from fedlens.reports.explanations import load_explanations
from fedlens.reports.predictions import load_predictions

STUDY = """\
name = "tiny"
output = "{output}"
[data]
folder = "images"
[hospitals]
by = "site"
[preprocess]
size = 64
[training]
passes = 2
batch_size = 16
[federation]
rounds = 4
[compare]
bootstrap = 100
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with imported and audited phantoms."""
    home = tmp_path_factory.mktemp("study")
    fedlens.draw_phantoms(home / "phantoms", images=240, seed=1, size=80)
    fedlens.import_images([home / "phantoms"], home / "images")
    fedlens.audit(home / "images")
    return home


def _study_file(home: Path, output: str) -> Path:
    file = home / f"{output}.toml"
    file.write_text(STUDY.format(output=output))
    return file


def _weights(output: Path) -> bytes:
    return (output / "seed-0" / "federated" / "model" / "weights.safetensors").read_bytes()


@pytest.fixture(scope="module")
def compared(home: Path) -> fedlens.CompareResult:
    """All arms of the tiny study."""
    return fedlens.compare(fedlens.load_study(_study_file(home, "compared")))


def test_the_plan_keeps_patients_and_copies_together(home: Path) -> None:
    study = fedlens.load_study(_study_file(home, "plan"))

    plan = fedlens.plan_images(study)

    assert {record.split for record in plan} == {"train", "validation", "test"}
    assert len({record.hospital for record in plan}) == 4
    for key in ("group", "cluster"):
        places: dict[str, set[tuple[str, str]]] = {}
        for record in plan:
            places.setdefault(getattr(record, key), set()).add((record.split, record.hospital))
        assert all(len(where) == 1 for where in places.values()), key


def test_a_run_killed_and_resumed_ends_with_the_same_weights(
    home: Path, compared: fedlens.CompareResult
) -> None:
    file = _study_file(home, "killed")
    code = "import sys, fedlens; from pathlib import Path; fedlens.run(fedlens.load_study(Path(sys.argv[1])))"
    process = subprocess.Popen([sys.executable, "-c", code, str(file)])
    history = home / "killed" / "seed-0" / "federated" / "history.jsonl"
    try:
        _wait_for(lambda: history.is_file() and b'"round": 2' in history.read_bytes(), process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (history.parent / "model").exists(), "it was killed too late to test anything"

    result = fedlens.run(fedlens.load_study(file), resume=True)

    assert _weights(result.folder) == _weights(compared.folder)
    (status,) = fedlens.run_status(result.folder)
    assert (status.state, len(status.events)) == ("finished", 4)
    assert result.advice.startswith("Advice was fitted over 4 hospitals")
    kept = [path.read_bytes() for path in sorted(result.folder.glob("**/model/decision.*"))]
    arm = compared.folder / "seed-0" / "federated"
    assert kept == [path.read_bytes() for path in sorted(arm.glob("model/decision.*"))] != []


def _wait_for(condition: object, process: subprocess.Popen[bytes]) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "the run did not get going"
        time.sleep(0.005)


def test_the_comparison_has_every_arm_and_a_report_that_stands_alone(
    compared: fedlens.CompareResult,
) -> None:
    html = compared.report.read_text()

    for arm in ("central", "federated", "explainable", "local"):
        assert arm in compared.csv.read_text().lower()
    assert "96.1" in compared.table, "the paper's reported figures stand beside ours"
    assert "reported" in compared.table.lower()
    assert 'src="http' not in html and 'href="http' not in html and "<link" not in html
    assert "data:image/png;base64," in html or "<svg" in html


def test_training_with_explanations_is_held_against_training_without(
    compared: fedlens.CompareResult,
) -> None:
    seed = compared.folder / "seed-0"
    weights = {
        arm: (seed / arm / "model" / "weights.safetensors").read_bytes()
        for arm in ("federated", "explainable")
    }

    assert weights["federated"] != weights["explainable"]
    assert "Against federated" in compared.table
    with (compared.folder / "explanation_gains.csv").open() as file:
        gains = [row for row in csv.DictReader(file) if row["scope"] == "pooled"]
    assert {row["arm"] for row in gains} == {"explainable"}
    assert {"accuracy", "pointing", "energy", "times-chance", "strays"} <= {row["figure"] for row in gains}
    assert {row["verdict"] for row in gains} <= {"better", "worse", "no effect seen"}


def test_every_arm_explained_its_test_images_with_its_own_network(compared: fedlens.CompareResult) -> None:
    arms = sorted(path.parent for path in compared.folder.glob("seed-0/*/predictions.parquet"))

    assert len(arms) == 7
    for arm in arms:
        values = load_explanations(arm / "explanations.parquet")
        assert values.image_ids.tolist() == load_predictions(arm / "predictions.parquet").image_ids.tolist()
        assert set(values.weights.values()) == {read_contract(arm / "model").weights_sha256}
        outlined = np.isfinite(values.columns["area"])
        assert 0 < outlined.sum() < len(values)
        assert np.array_equal(np.isfinite(values.columns["energy"]), outlined)
        assert np.isfinite(values.columns["strays"]).all()


def test_arms_of_all_hospitals_end_with_advice_that_predicting_takes_as_it_is(
    home: Path, compared: fedlens.CompareResult
) -> None:
    seed = compared.folder / "seed-0"
    arms = {path.parent.parent.name for path in seed.glob("*/model/decision.json")}
    assert arms == {"federated", "explainable"}
    facts = seed / "federated" / "model" / "decision.json"
    before = facts.read_bytes()
    assert json.loads(before)["weights_sha256"] == read_contract(facts.parent).weights_sha256
    steps: list[str] = []

    found = fedlens.predict_images(
        compared.folder, [home / "phantoms" / "mri"], progress=lambda step, *_: steps.append(step)
    )

    assert found.calibrated and not found.note and all(image.advice for image in found.images)
    assert set(steps) == {"predict"} and facts.read_bytes() == before


def test_a_comparison_that_is_finished_is_not_trained_again(
    home: Path, compared: fedlens.CompareResult
) -> None:
    before = _weights(compared.folder)
    measured = sorted(compared.folder.glob("seed-0/*/explanations.parquet"))
    written = [path.stat().st_mtime_ns for path in measured]
    steps: list[str] = []

    again = fedlens.compare(
        fedlens.load_study(home / "compared.toml"), progress=lambda step, *_: steps.append(step)
    )

    assert again.table == compared.table
    assert _weights(compared.folder) == before
    assert not [step for step in steps if "training" in step]
    assert [path.stat().st_mtime_ns for path in measured] == written


def test_a_run_trains_with_what_the_study_says(home: Path) -> None:
    text = STUDY.format(output="minded").replace("rounds = 4", "rounds = 1")
    (home / "minded.toml").write_text(text + "[explanation]\nfield_loss = 0.5\n")
    (home / "plain.toml").write_text(text.replace("minded", "plain"))

    minded, plain = (fedlens.run(fedlens.load_study(home / f"{name}.toml")) for name in ("minded", "plain"))

    assert _weights(minded.folder) != _weights(plain.folder)
    assert "trained with explanations: field_loss = 0.5" in minded.report.read_text()
    assert "trained with explanations" not in plain.report.read_text()


def test_explanations_lie_on_the_image_at_its_own_resolution(
    home: Path, compared: fedlens.CompareResult, tmp_path: Path
) -> None:
    plan = fedlens.plan_images(fedlens.load_study(home / "compared.toml"))
    images = [plan.path(record) for record in plan if record.split == "test"][:3]

    maps = fedlens.explain_images(compared.folder, images, out=tmp_path)

    assert len(maps) == 3
    for path, saliency in zip(images, maps, strict=True):
        described = json.loads((tmp_path / f"{path.stem}.json").read_bytes())
        assert described["target_name"] == saliency.ranked()[0][0]
        assert sum(described["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert np.array_equal(np.load(tmp_path / f"{path.stem}.npy"), saliency.values)
        assert (tmp_path / f"{path.stem}-figure.png").stat().st_size > 1000


def test_the_target_can_be_chosen_and_is_checked(
    home: Path, compared: fedlens.CompareResult, tmp_path: Path
) -> None:
    image = next((home / "phantoms" / "mri").iterdir())

    (saliency,) = fedlens.explain_images(compared.folder, [image], out=tmp_path, target="tumor")
    with pytest.raises(fedlens.FedLensError, match="Did you mean 'tumor'"):
        fedlens.explain_images(compared.folder, [image], out=tmp_path, target="tumour")

    assert saliency.target_name == "tumor"


def test_under_fedbn_every_hospital_has_a_network_of_its_own(home: Path) -> None:
    text = STUDY.format(output="fedbn").replace("rounds = 4", 'rounds = 2\nstrategy = "fedbn"')
    (home / "fedbn.toml").write_text(text)

    result = fedlens.run(fedlens.load_study(home / "fedbn.toml"))

    models = sorted(result.folder.glob("seed-0/federated/hospitals/*/model"))
    states = [load_file(folder / "weights.safetensors") for folder in models]
    assert len(states) == 4
    shared = {name for name in states[0] if np.array_equal(states[0][name], states[1][name])}
    assert any("weight" in name for name in shared)
    assert any("running_mean" in name for name in set(states[0]) - shared)
    assert "own normalisation" in result.report.read_text()
    values = load_explanations(result.folder / "seed-0" / "federated" / "explanations.parquet")
    assert len(set(values.weights.values())) == 4, "each explained with its own"
