"""``fedlens export``: a trained network of a run as ONNX files, checked against torch before they count."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedlens.decision.bundle import kept_bundle
from fedlens.errors import FedLensError, HistoryError, ModelError, SettingsError
from fedlens.export.contract import EdgeContract
from fedlens.export.quantise import quantise
from fedlens.export.runtime import OnnxClassifier
from fedlens.export.to_onnx import edge_contract, to_onnx
from fedlens.files import write_bytes, write_json
from fedlens.hospital.images import HospitalImages
from fedlens.imaging.manifest import load_manifest
from fedlens.imaging.preprocess import to_input
from fedlens.models.checkpoint import Contract
from fedlens.models.network import Network
from fedlens.preparation import PreparedStudy, prepare
from fedlens.progress import Progress, silent
from fedlens.run_folder import STUDY_NAME, check_images, kept_study
from fedlens.trained_network import load_trained

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

EXPORT_NAME = "export"
CALIBRATION_IMAGES = 256
"""Training images that the ranges of activations are taken from; more change the figures no longer."""

_CHECKED = 512
_PARITY = 1e-3
_BATCH = 32


@dataclass(frozen=True)
class Exported:
    """One ONNX file, and how it compares with torch on the same images.

    Attributes:
        path: The file; its description stands beside it as JSON.
        precision: ``float32`` or ``int8``.
        size: Bytes.
        images: Validation images that it was compared on; made-up ones where ``accuracy`` is None.
        largest_difference: Of any logit from torch's.
        same_decisions: Share of the images that both decide alike.
        accuracy: Share of validation images decided rightly.
        torch_accuracy: The same of the network in torch.
    """

    path: Path
    precision: str
    size: int
    images: int
    largest_difference: float
    same_decisions: float
    accuracy: float | None = None
    torch_accuracy: float | None = None


def export_run(
    run: Path,
    *,
    int8: bool = False,
    out: Path | None = None,
    arm: str = "federated",
    temperature: float | None = None,
    calibration_images: int = CALIBRATION_IMAGES,
    progress: Progress = silent,
) -> tuple[Exported, ...]:
    """Write ``model.onnx`` and, if asked for, ``model-int8.onnx``, each with a description beside it.

    Both take prepared pixels and carry what they must be used with: classes, preparation, fingerprint,
    digest of the weights, temperature.

    Args:
        run: Output folder of a run or comparison, one arm's folder, or a checkpoint folder.
        int8: Write eight bits too. Ranges come from training images of the run, and both files are then
            compared with torch on its validation images; test images play no part.
        out: Where to write; ``run/export`` by default.
        arm: Whose network, where ``run`` holds several.
        temperature: What logits are divided by; by default what was fitted for the checkpoint, else 1.
        calibration_images: Training images for ``int8``.
        progress: Called with the step, and how far it is.

    Raises:
        HistoryError: ``run`` holds no such network, or its images have changed.
        CheckpointError: Its files are torn, or its preparation is another version's.
        SettingsError: A temperature or number of images that makes no sense.
        ModelError: The network cannot be exported, or the file does not compute what torch does.
        DataError: The study's images have gone, and ``int8`` needs them.
        FedLensError: The packages for ONNX are not installed.
    """
    if temperature is not None and not temperature > 0:
        raise SettingsError(f"A temperature of {temperature} makes no sense.", fix="Give one above 0.")
    if calibration_images < 1:
        raise SettingsError("Eight bits need calibration images.", fix="Ask for 64 or more.")
    folder, network, contract = load_trained(run, arm)
    prepared = _prepared(folder, progress) if int8 else None
    promised = edge_contract(
        contract,
        modalities=_modalities(folder, prepared),
        temperature=_temperature(folder, contract) if temperature is None else temperature,
    )
    held_out = _spread(prepared.images("validation"), _CHECKED) if prepared else None
    progress("export", 0, 1 + int8)
    out = out or run / EXPORT_NAME
    model = to_onnx(network, promised)
    written = [_write(out / "model.onnx", model, promised, network, held_out)]
    if written[0].largest_difference > _PARITY:
        raise ModelError(
            f"The exported network's logits differ from torch's by {written[0].largest_difference:.4f}.",
            why=f"Rounding explains {_PARITY:g} at most.",
            fix=f"Do not use {written[0].path}; report this with the versions in its description.",
        )
    if prepared is not None:
        progress("export", 1, 2)
        pixels, _ = _spread(prepared.images("train"), calibration_images)
        small = quantise(model, pixels, promised)
        written.append(_write(out / "model-int8.onnx", small, promised, network, held_out))
    progress("export", 1 + int8, 1 + int8)
    return tuple(written)


def torch_logits(network: Network, pixels: Pixels) -> Floats:
    """Logits of the network in torch, float32 (N, classes), for prepared pixels uint8 (N, S, S, channels)."""
    parts = []
    with torch.inference_mode():
        for first in range(0, len(pixels), _BATCH):
            # Copied: torch wants memory that it could write to, and caches are read-only.
            batch = torch.from_numpy(np.array(pixels[first : first + _BATCH]))
            parts.append(network(to_input(batch)).numpy())
    return np.concatenate(parts)


def _prepared(folder: Path, progress: Progress) -> PreparedStudy:
    study = kept_study(folder)
    if study is None:
        raise HistoryError(
            f"No {STUDY_NAME} in or above {folder}.",
            why="Eight bits need training images, and only the study says which these are.",
            fix="Give the output folder of a run, or export without --int8.",
        )
    prepared = prepare(study, progress=progress)
    check_images(folder, prepared.manifest)
    return prepared


def _modalities(folder: Path, prepared: PreparedStudy | None) -> tuple[str, ...]:
    """Modalities of the study's images, as far as they can be found out."""
    if prepared is not None:
        return tuple(sorted({record.modality for record in prepared.manifest}))
    study = kept_study(folder)
    if study is None:
        return ()
    # A checkpoint is enough for an export: the manifest may have stayed elsewhere.
    with contextlib.suppress(FedLensError):
        manifest = load_manifest(study.data.folder)
        return tuple(sorted({record.modality for record in manifest if not record.excluded}))
    return ()


def _temperature(folder: Path, contract: Contract) -> float:
    bundle = kept_bundle(folder, contract)
    return bundle.facts.temperature if bundle else 1.0


def _spread(images: HospitalImages, most: int) -> tuple[Pixels, npt.NDArray[np.int64]]:
    """At most so many images and their labels, evenly over the selection."""
    rows = np.unique(np.linspace(0, len(images) - 1, min(most, len(images))).round().astype(np.int64))
    return images.take(rows), images.labels[rows]


def _write(
    path: Path,
    model: Any,
    contract: EdgeContract,
    network: Network,
    held_out: tuple[Pixels, npt.NDArray[np.int64]] | None,
) -> Exported:
    content: bytes = model.SerializeToString()
    # The old description would refuse the new file, should this be cut off before the new one is there.
    path.with_suffix(".json").unlink(missing_ok=True)
    write_bytes(path, content)
    classifier = OnnxClassifier(path)
    pixels = held_out[0] if held_out else _made_up(network)
    ours, theirs = classifier.logits(pixels), torch_logits(network, pixels)
    decided, expected = ours.argmax(axis=1), theirs.argmax(axis=1)
    labels = held_out[1] if held_out else None
    exported = Exported(
        path=path,
        precision=classifier.contract.precision,
        size=len(content),
        images=len(pixels),
        largest_difference=float(np.abs(ours - theirs).max()),
        same_decisions=float((decided == expected).mean()),
        accuracy=None if labels is None else float((decided == labels).mean()),
        torch_accuracy=None if labels is None else float((expected == labels).mean()),
    )
    write_json(
        path.with_suffix(".json"),
        {
            "contract": classifier.contract.model_dump(mode="json"),
            "onnx_sha256": hashlib.sha256(content).hexdigest(),
            "compared": {**asdict(exported), "path": path.name},
        },
    )
    return exported


def _made_up(network: Network) -> Pixels:
    """Images of smooth noise: parity needs no patient."""
    rng = np.random.default_rng(0)
    side = network.image_size
    coarse = rng.integers(0, 256, (8, 8, 8, network.channels))
    rows = np.arange(side) * 8 // side
    return coarse[:, rows][:, :, rows].astype(np.uint8)
