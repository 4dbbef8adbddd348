"""Exported networks at work: without torch, held to their contract, and clear where they refuse."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from pydicom.data import get_testdata_file

from fedlens.errors import CheckpointError, ModelError, SettingsError, UnreadableImageError
from fedlens.export.contract import METADATA_KEY
from fedlens.export.runtime import OnnxClassifier, load_image, predict_onnx
from fedlens.export.to_onnx import with_contract
from fedlens.imaging.formats import read_image
from fedlens.imaging.preprocess import preprocess

from .conftest import CLASSES, Made, made_pixels


def _scan(path: Path, seed: int = 0) -> Path:
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, (48, 60), np.uint8))
    return path


def _changed(made: Made, path: Path, **update: object) -> Path:
    """The same network under another contract."""
    model = onnx.load(made.float32)
    path.write_bytes(with_contract(model, made.contract.model_copy(update=update)).SerializeToString())
    return path


def test_torch_is_never_loaded(made: Made, tmp_path: Path) -> None:
    scan = _scan(tmp_path / "scan.png")
    program = (
        "import sys; from pathlib import Path; from fedlens.export.runtime import predict_onnx; "
        f"found = predict_onnx(Path({str(made.int8)!r}), [Path({str(scan)!r})]); "
        "print(found[0].predicted, 'torch' in sys.modules, 'monai' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    predicted, *loaded = done.stdout.split()
    assert predicted in CLASSES and loaded == ["False", "False"]


def test_probabilities_follow_the_temperature(made: Made) -> None:
    classifier = OnnxClassifier(made.float32)
    pixels = made_pixels(20)
    logits = classifier.logits(pixels).astype(np.float64) / 1.7
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    found = classifier.probabilities(pixels)

    assert found.dtype == np.float32 and found.shape == (20, 3)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_no_images_give_empty_arrays(made: Made) -> None:
    classifier = OnnxClassifier(made.float32)

    assert classifier.probabilities(made_pixels(0)).shape == (0, 3)
    assert classifier.heat(made_pixels(0)).shape == (0, 3, 4, 4)


def test_wrong_pixels_are_refused(made: Made) -> None:
    classifier = OnnxClassifier(made.float32)

    with pytest.raises(ModelError, match="uint8"):
        classifier.logits(made_pixels(2).astype(np.float32))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="32, 32, 3"):
        classifier.logits(made_pixels(2, side=16))


def test_files_are_prepared_as_the_contract_says(made: Made, tmp_path: Path) -> None:
    scans = [_scan(tmp_path / f"{number}.png", number) for number in range(11)]
    classifier = OnnxClassifier(made.float32)
    pixels = np.stack([preprocess(read_image(scan), classifier.contract.preprocess, "mri") for scan in scans])
    expected = classifier.probabilities(pixels)

    found = predict_onnx(made.float32, scans)

    assert [entry.file for entry in found] == list(map(str, scans))
    for entry, row in zip(found, expected, strict=True):
        assert entry.modality == "mri" and list(entry.probabilities) == list(CLASSES)
        np.testing.assert_allclose(list(entry.probabilities.values()), row, atol=1e-6)
        assert entry.predicted == CLASSES[int(row.argmax())]


def test_modality_comes_from_the_caller_then_the_header_then_the_contract(made: Made, tmp_path: Path) -> None:
    several = made.contract.model_copy(update={"modalities": ("mri", "xray")})
    scan, header = _scan(tmp_path / "scan.png"), Path(get_testdata_file("CT_small.dcm"))

    assert load_image(scan, several, "xray")[1] == "xray"
    assert load_image(header, made.contract)[1] == "ct"
    assert load_image(scan, made.contract)[1] == "mri"
    with pytest.raises(SettingsError, match=r"scan\.png.*mri, xray"):
        load_image(scan, several)
    with pytest.raises(SettingsError, match="No modality 'mr'"):
        load_image(scan, several, "mr")


def test_a_set_profile_needs_no_modality(made: Made, tmp_path: Path) -> None:
    settings = made.contract.preprocess.model_copy(update={"profile": "dermoscopy"})
    contract = made.contract.model_copy(update={"modalities": (), "preprocess": settings})

    assert load_image(_scan(tmp_path / "scan.png"), contract)[1] == "dermoscopy"


def test_an_image_that_cannot_be_read_does_not_stop_the_rest(made: Made, tmp_path: Path) -> None:
    _scan(tmp_path / "scan.png")
    (tmp_path / "torn.png").write_text("no image")

    scan, torn = predict_onnx(made.float32, [tmp_path])

    assert scan.predicted in CLASSES and not scan.problem
    assert torn.problem and torn.predicted == "" and not torn.probabilities
    with pytest.raises(UnreadableImageError, match=r"torn\.png"):
        load_image(tmp_path / "torn.png", made.contract)
    with pytest.raises(SettingsError, match="No images"):
        predict_onnx(made.float32, [])


def test_another_versions_preparation_is_refused(made: Made, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="prepared otherwise"):
        OnnxClassifier(_changed(made, tmp_path / "model.onnx", preprocess_digest="f" * 64))


def test_files_without_a_sound_contract_are_refused(made: Made, tmp_path: Path) -> None:
    model = onnx.load(made.float32)
    model.metadata_props[0].value = '{"classes": 3}'
    (tmp_path / "odd.onnx").write_bytes(model.SerializeToString())
    del model.metadata_props[:]
    (tmp_path / "bare.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "torn.onnx").write_bytes(made.float32.read_bytes()[:1000])

    assert METADATA_KEY == "fedlens"
    for name, match in (
        ("odd", "Cannot read the contract"),
        ("bare", "no contract"),
        ("torn", "Cannot read the network"),
        ("absent", "No file"),
    ):
        with pytest.raises(CheckpointError, match=match):
            OnnxClassifier(tmp_path / f"{name}.onnx")


def test_a_description_beside_the_file_is_held_to(made: Made, tmp_path: Path) -> None:
    path = Path(shutil.copy(made.float32, tmp_path / "model.onnx"))
    path.with_suffix(".json").write_text(json.dumps({"onnx_sha256": "0" * 64}))
    with pytest.raises(CheckpointError, match=r"not the file that model\.json was written for"):
        OnnxClassifier(path)

    path.with_suffix(".json").write_text("{")
    with pytest.raises(CheckpointError, match=r"Cannot read .*model\.json"):
        OnnxClassifier(path)


def test_a_network_without_heat_says_so(made: Made, tmp_path: Path) -> None:
    model = onnx.load(made.float32)
    del model.graph.output[1]
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    classifier = OnnxClassifier(tmp_path / "model.onnx")

    assert not classifier.has_heat
    with pytest.raises(ModelError, match="gives no maps"):
        classifier.heat(made_pixels(1))
