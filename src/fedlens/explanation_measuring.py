"""Explanation quality on test images: every finished arm explains them once, with its own network.

Only after training: nothing is chosen on these images. Each image is explained for the class that the
network predicts, and figures stay on this side of the wall, as predictions do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedlens.errors import HistoryError
from fedlens.explain.straying import cell_of
from fedlens.hospital.device import choose_device
from fedlens.hospital.map_measures import BATCH, MapMeasures
from fedlens.hospital.regions import ImageRegions
from fedlens.models.checkpoint import load_checkpoint, read_contract
from fedlens.preparation import PreparedStudy
from fedlens.progress import Progress, silent
from fedlens.reports.explanations import EXPLANATIONS_NAME, ExplanationValues, load_explanations
from fedlens.reports.predictions import PREDICTIONS_NAME, Predictions, load_predictions
from fedlens.run_folder import HOSPITALS_NAME, MODEL_NAME

Floats = npt.NDArray[np.float64]


def model_of(arm: Path, hospital: str) -> Path:
    """A hospital's own checkpoint where it has one (FedBN), else the arm's."""
    own = arm / HOSPITALS_NAME / hospital / MODEL_NAME
    return own if own.is_dir() else arm / MODEL_NAME


def measure_explanations(folder: Path, prepared: PreparedStudy, *, progress: Progress = silent) -> None:
    """Write ``explanations.parquet`` of every finished arm of a run folder.

    A file of the same network and method is kept, so the same call goes on after an interruption.

    Args:
        folder: The run folder.
        prepared: Its images; ``study.explanation`` names the method, and ``measures = "none"`` measures
            nothing.
        progress: Told of every batch.

    Raises:
        CheckpointError: An arm's network cannot be read.
        ExplanationError: The method does not suit it.
        HistoryError: An arm's predictions are of other images.
    """
    if prepared.study.explanation.measures == "none":
        return
    for path in sorted(folder.glob(f"seed-*/*/{PREDICTIONS_NAME}")):
        arm = path.parent
        if (arm / MODEL_NAME).is_dir() and not _is_measured(arm, prepared):
            step = f"explain test images, {arm.parent.name} {arm.name}"
            _measure_arm(arm, prepared, step, progress).save(arm / EXPLANATIONS_NAME)


def _is_measured(arm: Path, prepared: PreparedStudy) -> bool:
    try:
        found = load_explanations(arm / EXPLANATIONS_NAME)
    except HistoryError:
        return False
    return found.method == prepared.study.explanation.method and found.weights == _weights(arm, prepared)


def _weights(arm: Path, prepared: PreparedStudy) -> dict[str, str]:
    return {name: read_contract(model_of(arm, name)).weights_sha256 for name in prepared.hospitals}


def _measure_arm(arm: Path, prepared: PreparedStudy, step: str, progress: Progress) -> ExplanationValues:
    predictions = load_predictions(arm / PREDICTIONS_NAME)
    tests = [prepared.images("test", hospital) for hospital in prepared.hospitals]
    records = [record for images in tests for record in images.records]
    if [record.image_id for record in records] != predictions.image_ids.tolist():
        raise HistoryError(
            f"{arm} predicted other test images than the study has now.",
            fix="Run that arm again, into an empty folder.",
        )
    columns: dict[str, Floats] = {}
    done = 0
    for hospital, images in zip(prepared.hospitals, tests, strict=True):
        network, _ = load_checkpoint(model_of(arm, hospital), classes=prepared.classes)
        network.to(choose_device(prepared.study.training.device))
        measures = MapMeasures(ImageRegions(images), prepared.study.explanation.method)
        cell = cell_of(network)
        for start in range(0, len(images), BATCH):
            progress(step, done, len(records))
            rows = np.arange(start, min(start + BATCH, len(images)))
            values = measures.values(network, rows, cell)
            # What a clock says belongs to no image.
            values.pop("cost")
            for name, column in values.items():
                whole = columns.setdefault(name, np.full(len(records), np.nan))
                whole[done : done + len(rows)] = column
            done += len(rows)
    progress(step, done, len(records))
    return _values(predictions, columns, prepared.study.explanation.method, _weights(arm, prepared))


def _values(
    predictions: Predictions, columns: Mapping[str, Floats], method: str, weights: Mapping[str, str]
) -> ExplanationValues:
    return ExplanationValues(
        image_ids=predictions.image_ids,
        hospitals=predictions.hospitals,
        sources=predictions.sources,
        groups=predictions.groups,
        true=predictions.true,
        columns=columns,
        method=method,
        weights=weights,
    )
