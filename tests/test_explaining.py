"""Saliency maps for any readable image, from a checkpoint alone or with the study beside it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom.data import get_testdata_file

from fedlens import explaining
from fedlens.errors import (
    CheckpointError,
    ExplanationError,
    HistoryError,
    SettingsError,
    UnreadableImageError,
)
from fedlens.explaining import explain_images
from fedlens.imaging.importer import import_images
from fedlens.imaging.preprocess import digest
from fedlens.models.checkpoint import Contract, save_checkpoint
from fedlens.models.fingerprint import fingerprint
from fedlens.models.registry import build_network
from fedlens.run_folder import keep_study
from fedlens.study import DataSettings, ModelSettings, PreprocessSettings, Study

CLASSES = ("benign", "malignant", "other")


def _save_model(folder: Path, *, digest_of_pixels: str = "") -> Path:
    settings = PreprocessSettings(size=32)
    network = build_network(ModelSettings(), classes=len(CLASSES), channels=3, image_size=32, seed=0)
    contract = Contract(
        model=ModelSettings(),
        classes=CLASSES,
        preprocess=settings,
        preprocess_digest=digest_of_pixels or digest(settings),
        fingerprint=fingerprint(network),
    )
    return save_checkpoint(folder, network, contract)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with one trained arm; untrained weights serve here."""
    _save_model(tmp_path / "run" / "seed-0" / "federated" / "model")
    return tmp_path / "run"


def _draw(path: Path, shape: tuple[int, ...] = (40, 60), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, shape, np.uint8))
    return path


def test_every_image_gets_figure_overlay_array_and_description(run: Path, tmp_path: Path) -> None:
    images = [_draw(tmp_path / "scan.png"), _draw(tmp_path / "skin.jpg", (50, 30, 3))]
    before = [image.read_bytes() for image in images]

    maps = explain_images(run, images)

    out = run / "explanations"
    assert {path.name for path in out.iterdir()} == {
        f"{stem}{ending}" for stem in ("scan", "skin") for ending in ("-figure.png", ".png", ".npy", ".json")
    }
    for image, saliency, shape in zip(images, maps, [(40, 60, 3), (50, 30, 3)], strict=True):
        assert cv2.imread(str(out / f"{image.stem}.png")).shape == shape
        assert np.array_equal(np.load(out / f"{image.stem}.npy"), saliency.values)
        described = json.loads((out / f"{image.stem}.json").read_bytes())
        assert described["target_name"] == saliency.ranked()[0][0]
        assert tuple(described["probabilities"]) == tuple(sorted(CLASSES))
    assert [image.read_bytes() for image in images] == before


def test_more_images_than_a_batch_come_back_in_order(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explaining, "_BATCH", 2)
    images = [_draw(tmp_path / f"{number}.png", seed=number) for number in range(5)]
    steps: list[tuple[int, int]] = []

    maps = explain_images(run, images, progress=lambda _, done, total: steps.append((done, total)))

    assert [Path(saliency.file) for saliency in maps] == images
    assert steps == [(0, 5), (2, 5), (4, 5), (5, 5)]
    (alone,) = explain_images(run, images[3:4], out=tmp_path / "alone")
    np.testing.assert_allclose(alone.values, maps[3].values, atol=1e-4)


def test_images_of_one_name_do_not_overwrite_each_other(run: Path, tmp_path: Path) -> None:
    images = [_draw(tmp_path / "a" / "scan.png"), _draw(tmp_path / "b" / "scan.png", seed=1)]

    explain_images(run, images, out=tmp_path / "out")

    files = [
        json.loads((tmp_path / "out" / f"{name}.json").read_bytes())["file"] for name in ("scan", "scan-2")
    ]
    assert files == [str(image) for image in images]


def test_a_chosen_class_is_explained(run: Path, tmp_path: Path) -> None:
    image = _draw(tmp_path / "scan.png")

    names = [explain_images(run, [image], target=name)[0].target_name for name in CLASSES]

    assert names == list(CLASSES)


def test_a_chosen_method_is_used_and_written_down(run: Path, tmp_path: Path) -> None:
    image = _draw(tmp_path / "scan.png")

    (usual,) = explain_images(run, [image], out=tmp_path / "a")
    (finer,) = explain_images(run, [image], out=tmp_path / "b", method="layer-cam-two-stages")

    assert usual.method == "grad-cam" and not np.array_equal(usual.values, finer.values)
    described = json.loads((tmp_path / "b" / "scan.json").read_bytes())
    assert described["method"] == "layer-cam-two-stages" and "second stage" in described["layer"]
    with pytest.raises(ExplanationError, match=r"does not suit efdl-cnn.*score-cam"):
        explain_images(run, [image], out=tmp_path / "c", method="attention-rollout")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("place", ["", "seed-0/federated", "seed-0/federated/model"])
def test_a_run_an_arm_and_a_checkpoint_will_do(run: Path, tmp_path: Path, place: str) -> None:
    assert explain_images(run / place, [_draw(tmp_path / "scan.png")], out=tmp_path / "out")


def test_dicom_says_its_own_modality(run: Path, tmp_path: Path) -> None:
    path = Path(str(get_testdata_file("MR_small.dcm")))

    by_header = explain_images(run, [path], out=tmp_path / "a")[0]
    as_mri = explain_images(run, [path], out=tmp_path / "b", modality="mri")[0]
    as_skin = explain_images(run, [path], out=tmp_path / "c", modality="dermoscopy")[0]

    assert by_header.reproduce["modalities"] == "mri"
    assert by_header.probabilities == as_mri.probabilities != as_skin.probabilities


def test_the_study_knows_an_image_by_its_content(run: Path, tmp_path: Path) -> None:
    image = _draw(tmp_path / "phantoms" / "scan.png")
    rows = "path,label,patient,mask,site,modality,age,sex\nscan.png,benign,P1,,,xray,,\n"
    (tmp_path / "phantoms" / "manifest.csv").write_text(rows)
    import_images([tmp_path / "phantoms"], tmp_path / "images")
    keep_study(Study(name="a", output=run, data=DataSettings(folder=tmp_path / "images")), run)
    elsewhere = tmp_path / "copy.png"
    elsewhere.write_bytes(image.read_bytes())

    (saliency,) = explain_images(run, [elsewhere])

    assert saliency.reproduce["modalities"] == "xray"


def test_images_that_have_moved_away_do_not_matter(run: Path, tmp_path: Path) -> None:
    keep_study(Study(name="a", output=run, data=DataSettings(folder=tmp_path / "gone")), run)

    (saliency,) = explain_images(run, [_draw(tmp_path / "scan.png")])

    assert saliency.reproduce["modalities"] == "other"


def test_what_cannot_be_done_is_refused(run: Path, tmp_path: Path) -> None:
    image = _draw(tmp_path / "scan.png")
    torn = tmp_path / "torn.png"
    torn.write_bytes(image.read_bytes()[:100])

    with pytest.raises(SettingsError, match="No images"):
        explain_images(run, [])
    with pytest.raises(SettingsError, match="Did you mean 'malignant'"):
        explain_images(run, [image], target="malignent")
    with pytest.raises(SettingsError, match="Did you mean 'grad-cam'"):
        explain_images(run, [image], method="gradcam")
    with pytest.raises(SettingsError, match="dermoscopy"):
        explain_images(run, [image], modality="photo")
    with pytest.raises(UnreadableImageError, match=r"torn\.png"):
        explain_images(run, [torn])
    with pytest.raises(HistoryError, match="It has federated"):
        explain_images(run, [image], arm="central")
    with pytest.raises(HistoryError, match="finished run"):
        explain_images(tmp_path / "nothing", [image])
    assert not (run / "explanations").exists()


def test_a_network_that_learnt_from_other_pixels_is_refused(tmp_path: Path) -> None:
    _save_model(tmp_path / "model", digest_of_pixels="0" * 64)

    with pytest.raises(CheckpointError, match="preprocessing"):
        explain_images(tmp_path, [_draw(tmp_path / "scan.png")])
