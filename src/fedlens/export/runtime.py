"""Exported networks at work: onnxruntime, numpy and OpenCV; no torch, here or in anything imported."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedlens import image_loading
from fedlens.errors import (
    CheckpointError,
    FedLensError,
    ModelError,
    SettingsError,
    UnreadableImageError,
)
from fedlens.export.contract import HEAT, LOGITS, METADATA_KEY, PIXELS, EdgeContract, parse_contract
from fedlens.image_loading import find_images, shown_name
from fedlens.imaging.preprocess import PROFILES, check_modality, digest, preprocess
from fedlens.progress import Progress, silent

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

BATCH = 8
"""Images in one call: larger batches no longer fit the caches of a core and are slower for each image."""


@dataclass(frozen=True)
class EdgePrediction:
    """What an exported network says about one image.

    Attributes:
        file: Path as it was given; ``#n`` follows for frame n of a multi-frame DICOM file.
        probabilities: By class, after temperature; empty for an image that cannot be read.
        modality: By which the image was prepared.
        problem: Why the image cannot be read; empty where it can.
    """

    file: str
    probabilities: Mapping[str, float]
    modality: str = ""
    problem: str = ""

    @property
    def predicted(self) -> str:
        """The likeliest class; empty where the image cannot be read."""
        return max(self.probabilities, key=self.probabilities.__getitem__, default="")


class OnnxClassifier:
    """An exported network, ready to predict.

    Args:
        path: Written by ``fedlens export``.
        threads: Threads of one prediction; 0 takes all cores.

    Attributes:
        contract: What the file promises, and how images must be prepared for it.

    Raises:
        FedLensError: onnxruntime is not installed.
        CheckpointError: No such file, damaged, without contract, not the file that its description
            beside it was written for, or made for another version's preparation.
    """

    contract: EdgeContract

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        self._session = _session(path, threads)
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.contract = parse_contract(metadata.get(METADATA_KEY, ""), str(path))
        found = digest(self.contract.preprocess)
        if found != self.contract.preprocess_digest:
            raise CheckpointError(
                f"{path} was trained on images that were prepared otherwise than this version does it.",
                why=f"Digest {found[:12]}, but the file says {self.contract.preprocess_digest[:12]}.",
                fix="Use the version of FedLens that trained the network, or train again.",
            )
        self.has_heat = HEAT in {output.name for output in self._session.get_outputs()}

    def logits(self, pixels: Pixels) -> Floats:
        """Logits before temperature, float32 (N, classes).

        Args:
            pixels: uint8 (N, S, S, channels), prepared.

        Raises:
            ModelError: Another shape or type.
        """
        return self._run(LOGITS, pixels)

    def probabilities(self, pixels: Pixels) -> Floats:
        """Softmax of logits over temperature, float32 (N, classes).

        Args:
            pixels: uint8 (N, S, S, channels), prepared.

        Raises:
            ModelError: Another shape or type.
        """
        logits = self.logits(pixels).astype(np.float64) / self.contract.temperature
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float32)

    def heat(self, pixels: Pixels) -> Floats:
        """Grad-CAM of every class at the network's own grid, float32 (N, classes, h, w), 0..1.

        Each map is divided by its hottest place; one where nothing speaks for the class is all zero.

        Raises:
            ModelError: Another shape or type, or the network has no such output.
        """
        if not self.has_heat:
            raise ModelError(
                f"The exported {self.contract.network} gives no maps.",
                why="Its head does not begin with pooling.",
                fix="Explain with the checkpoint: fedlens explain",
            )
        heat = self._run(HEAT, pixels)
        hottest = heat.max(axis=(2, 3), keepdims=True, initial=0)
        return np.asarray(heat / np.where(hottest > 0, hottest, 1), np.float32)

    def _run(self, output: str, pixels: Pixels) -> Floats:
        settings = self.contract.preprocess
        expected = (settings.size, settings.size, settings.channels)
        if pixels.dtype != np.uint8 or pixels.shape[1:] != expected:
            raise ModelError(
                f"Pixels are {pixels.dtype} of shape {pixels.shape}.",
                why=f"The network takes uint8 (N, {', '.join(map(str, expected))}).",
                fix="Prepare images with fedlens.imaging.preprocess, as the contract says.",
            )
        parts = [
            self._session.run([output], {PIXELS: np.ascontiguousarray(pixels[first : first + BATCH])})[0]
            # Once for no images at all, which gives an empty array of the right shape.
            for first in range(0, max(1, len(pixels)), BATCH)
        ]
        return np.concatenate(parts)


def predict_onnx(
    model: Path,
    images: Sequence[Path],
    *,
    modality: str = "",
    threads: int = 0,
    progress: Progress = silent,
) -> list[EdgePrediction]:
    """Class probabilities of image files, DICOM included, without torch; a bad file does not stop the rest.

    Args:
        model: Written by ``fedlens export``.
        images: Files, and folders, which are searched with all that is below.
        modality: Preparation profile; where empty it comes from the DICOM header, or is the one modality
            that the network was trained on.
        threads: Threads of one prediction; 0 takes all cores.
        progress: Called with step ``predict``.

    Raises:
        CheckpointError: As for :class:`OnnxClassifier`.
        SettingsError: No images, an unknown modality, or one that nothing tells.
    """
    places = find_images(images)
    if not places:
        raise SettingsError("No images to predict.", fix="Give an image file, or a folder that holds some.")
    classifier = OnnxClassifier(model, threads=threads)
    found: list[EdgePrediction] = []
    for first in range(0, len(places), BATCH):
        progress("predict", first, len(places))
        found += _predict_batch(classifier, places[first : first + BATCH], modality)
    progress("predict", len(places), len(places))
    return found


def _predict_batch(
    classifier: OnnxClassifier, places: Sequence[tuple[Path, int | None]], modality: str
) -> list[EdgePrediction]:
    files = [shown_name(place) for place in places]
    found: dict[int, EdgePrediction] = {}
    loaded: dict[int, tuple[Pixels, str]] = {}
    for index, (path, frame) in enumerate(places):
        try:
            loaded[index] = load_image(path, classifier.contract, modality, frame=frame or 0)
        except UnreadableImageError as error:
            found[index] = EdgePrediction(files[index], {}, problem=error.reason)
    if loaded:
        shares = classifier.probabilities(np.stack([pixels for pixels, _ in loaded.values()]))
        for (index, (_, known)), row in zip(loaded.items(), shares, strict=True):
            named = dict(zip(classifier.contract.classes, map(float, row), strict=True))
            found[index] = EdgePrediction(files[index], named, known)
    return [found[index] for index in range(len(places))]


def load_image(
    path: Path, contract: EdgeContract, modality: str = "", *, frame: int = 0
) -> tuple[Pixels, str]:
    """One image prepared as the contract says, uint8 (S, S, channels), and the modality it was taken for.

    Raises:
        SettingsError: An unknown modality, or one that neither header nor contract tells.
        UnreadableImageError: It cannot be decoded.
    """
    if modality:
        check_modality(modality)
    given = image_loading.load_image(path, frame=frame)
    modality = modality or given.modality
    if not modality and contract.preprocess.profile != "auto":
        modality = contract.preprocess.profile
    if not modality and len(contract.modalities) == 1:
        modality = contract.modalities[0]
    if not modality:
        raise SettingsError(
            f"Nothing says what kind of image {path} is.",
            why="The network was trained on several modalities, and each is prepared in its own way.",
            fix=f"Say it with --modality: {', '.join(contract.modalities or PROFILES)}.",
        )
    return preprocess(given.pixels, contract.preprocess, modality), modality


def _session(path: Path, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise FedLensError(
            "The package onnxruntime is not installed.",
            fix="Install it with: pip install 'fedlens[onnx]'",
        ) from error
    if not path.is_file():
        raise CheckpointError(f"No file {path}.", fix="Make it with: fedlens export RUN --onnx")
    content = path.read_bytes()
    _check_description(path, content)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    # onnxruntime raises classes of its own that share no public base.
    except Exception as error:
        raise CheckpointError(
            f"Cannot read the network {path}: {str(error).splitlines()[0]}",
            fix="Copy the file again from where it was written.",
        ) from error


def _check_description(path: Path, content: bytes) -> None:
    """Hold the file to the digest in the JSON file beside it, if there is one."""
    described = path.with_suffix(".json")
    if not described.is_file():
        return
    try:
        expected = json.loads(described.read_bytes())["onnx_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"Cannot read {described}.", fix="Copy it again from where it was written."
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise CheckpointError(
            f"{path} is not the file that {described.name} was written for.",
            why=f"Its digest is {found[:12]}, and the description says {str(expected)[:12]}.",
            fix="Copy both files again from where they were written.",
        )
