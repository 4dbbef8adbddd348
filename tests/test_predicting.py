"""Advice for any images, from a run folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom.data import get_testdata_file

from fedlens import predicting
from fedlens.decision.bundle import ARRAYS_NAME, FACTS_NAME, has_bundle
from fedlens.decision.settings import DecisionSettings
from fedlens.errors import HistoryError, SettingsError
from fedlens.explaining import explain_images
from fedlens.imaging.manifest import load_manifest
from fedlens.predicting import predict_images
from tests.untrained_run import make_run


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("study")).parent


@pytest.fixture(scope="module")
def run(home: Path) -> Path:
    """A run whose advice is fitted."""
    image = next((home / "phantoms").rglob("*.png"))
    assert predict_images(home / "run", [image]).calibrated
    return home / "run"


def draw(path: Path, shape: tuple[int, ...] = (60, 60, 3), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, shape, np.uint8))
    return path


def test_advice_is_fitted_once_and_kept(run: Path, home: Path) -> None:
    folder = run / "seed-0" / "federated" / "model"
    assert has_bundle(folder)
    before = (folder / FACTS_NAME).stat().st_mtime_ns
    steps: list[str] = []
    image = next((home / "phantoms").rglob("*.png"))
    predict_images(run, [image], progress=lambda step, _, __: steps.append(step))
    assert set(steps) == {"predict"} and (folder / FACTS_NAME).stat().st_mtime_ns == before


def test_images_of_the_study_are_known_by_content(run: Path, home: Path, tmp_path: Path) -> None:
    manifest = load_manifest(home / "images")
    records = {record.modality: record for record in manifest}
    copies = []
    for name, record in sorted(records.items()):
        copies.append(tmp_path / f"{name}.png")
        shutil.copy(manifest.path(record), copies[-1])
    found = predict_images(run, copies)
    assert [image.modality for image in found.images] == ["dermoscopy", "mri", "xray"]
    for image in found.images:
        assert sum(chance for _, chance in image.probabilities) == pytest.approx(1)
        assert image.advice is not None and image.advice.reasons and image.distance is not None
        assert image.distance < 3


def test_probabilities_are_those_of_explain_at_a_temperature(run: Path, home: Path) -> None:
    manifest = load_manifest(home / "images")
    files = [manifest.path(record) for record in list(manifest)[:5]]
    plain = [dict(each.probabilities) for each in explain_images(run, files, out=home / "explained")]
    for image, before in zip(predict_images(run, files).images, plain, strict=True):
        after = dict(image.probabilities)
        assert sorted(after, key=after.__getitem__) == sorted(before, key=before.__getitem__)


def test_folders_frames_and_bad_files(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicting, "_BATCH", 2)
    folder = tmp_path / "inbox"
    draw(folder / "a.png")
    draw(folder / "deep" / "b.jpg")
    (folder / "c.png").write_bytes((folder / "a.png").read_bytes()[:200])
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes(b"")
    shutil.copy(str(get_testdata_file("MR_small.dcm")), folder / "slice")
    shutil.copy(str(get_testdata_file("examples_ybr_color.dcm")), folder / "series.dcm")

    found = predict_images(run, [folder, tmp_path / "missing.png"])

    files = [Path(image.file).name for image in found.images]
    frames = [name for name in files if name.startswith("series")]
    assert frames == [f"series.dcm#{number}" for number in range(len(frames))] and len(frames) == 30
    assert [name for name in files if name not in frames] == [
        "a.png", "c.png", "b.jpg", "slice", "missing.png"
    ]  # fmt: skip
    assert {Path(image.file).name for image in found.unreadable} == {"c.png", "missing.png"}
    by_name = {Path(image.file).name: image for image in found.images}
    assert by_name["c.png"].problem and by_name["c.png"].advice is None and not by_name["c.png"].probabilities
    assert by_name["slice"].modality == "mri"


def test_kinds_that_were_not_learnt_from_are_refused(run: Path, tmp_path: Path) -> None:
    image = draw(tmp_path / "scan.png", (60, 60))
    (refused,) = predict_images(run, [image], modality="ct").images
    assert refused.advice is not None and refused.advice.kind == "refused"
    assert "computed tomogram" in refused.advice.reasons[0] and not refused.probabilities
    (noise,) = predict_images(run, [draw(tmp_path / "noise.png")]).images
    assert noise.modality == "dermoscopy" and noise.advice is not None
    assert noise.advice.kind == "refer"


def test_settings_may_be_chosen_anew(run: Path, home: Path) -> None:
    files = sorted((home / "phantoms").rglob("*.png"))[:6]
    sizes = [
        sum(len(image.label_set) for image in predict_images(run, files, settings=settings).images)
        for settings in (DecisionSettings(coverage=0.5), None, DecisionSettings(coverage=0.999))
    ]
    assert sizes[0] <= sizes[1] <= sizes[2] == 6 * 6


def test_maps_are_written_where_asked(run: Path, tmp_path: Path) -> None:
    images = [draw(tmp_path / "a" / "scan.png"), draw(tmp_path / "b" / "scan.png", seed=1)]
    found = predict_images(run, images, maps=True, out=tmp_path / "out")
    assert [Path(image.map).name for image in found.images] == ["scan.png", "scan-2.png"]
    assert all(Path(image.map).is_file() for image in found.images)
    assert not predict_images(run, images).images[0].map and not (run / "predictions").exists()


@pytest.mark.parametrize("missing", ["study", "images"])
def test_without_the_studys_images_it_says_so(home: Path, tmp_path: Path, missing: str) -> None:
    copied = tmp_path / "run"
    shutil.copytree(home / "run", copied)
    model = copied / "seed-0" / "federated" / "model"
    for name in (FACTS_NAME, ARRAYS_NAME):
        (model / name).unlink(missing_ok=True)
    kept = copied / "study.json"
    if missing == "study":
        kept.unlink()
    else:
        kept.write_text(kept.read_text().replace(str(home / "images"), str(tmp_path / "gone")))

    found = predict_images(copied, [draw(tmp_path / "scan.png")])

    assert not found.calibrated and "not calibrated" in found.note
    (image,) = found.images
    assert image.advice is not None and "not calibrated" in image.advice.sentence()
    assert sum(chance for _, chance in image.probabilities) == pytest.approx(1)
    assert not has_bundle(model) and image.label_set == ()


def test_other_splits_than_the_runs_are_not_fitted_on(home: Path, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(home / "run", copied)
    for name in (FACTS_NAME, ARRAYS_NAME):
        (copied / "seed-0" / "federated" / "model" / name).unlink(missing_ok=True)
    kept = copied / "study.json"
    kept.write_text(kept.read_text().replace('"split_seed": 0', '"split_seed": 1'))
    found = predict_images(copied, [draw(tmp_path / "scan.png")])
    assert not found.calibrated and "other images, splits or shares" in found.note


def test_what_cannot_be_done_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingsError, match="No images found"):
        predict_images(run, [tmp_path / "empty"])
    with pytest.raises(SettingsError, match="dermoscopy"):
        predict_images(run, [tmp_path], modality="photo")
    with pytest.raises(HistoryError, match="It has federated"):
        predict_images(run, [draw(tmp_path / "a.png")], arm="central")
