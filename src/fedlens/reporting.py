"""``fedlens report``: tables, figures and the stand-alone page from what a run folder holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedlens.arm_path import FEDERATED
from fedlens.coordinator.history import HISTORY_NAME, read_history
from fedlens.errors import HistoryError
from fedlens.explain.overlay import overlay
from fedlens.explain.saliency import SaliencyMap, saliency_maps
from fedlens.federation_report import REPORT_NAME, holds_only_a_history, write_federation_report
from fedlens.files import write_text
from fedlens.imaging.formats import read_mask, read_record
from fedlens.imaging.preprocess import to_input
from fedlens.models.checkpoint import load_checkpoint
from fedlens.preparation import PreparedStudy, prepare
from fedlens.progress import Progress, silent
from fedlens.reports.comparison import Comparison, compare, load_arms, write_comparison
from fedlens.reports.figures import TrainingCurve, training_curve
from fedlens.reports.gallery import Case, GalleryItem, choose_cases, gallery_item
from fedlens.reports.html import ReportInput, save_report
from fedlens.reports.paper import markdown
from fedlens.reports.predictions import PREDICTIONS_NAME, load_predictions
from fedlens.reports.provenance import now, shareable, versions
from fedlens.reports.sealing import sealing_notes
from fedlens.reports.shares import shares_of
from fedlens.run_folder import HOSPITALS_NAME, MODEL_NAME, hold_images, kept_study

TABLE_NAME = "table.md"


@dataclass(frozen=True, eq=False)
class Report:
    """What was written: the page, and the figures behind it."""

    page: Path
    comparison: Comparison


def write_report(folder: Path, *, progress: Progress = silent) -> Path:
    """Write the tables and the page of a run folder again, without training; returns the page's path.

    A run between machines leaves no predictions here: its page is made of its history alone.

    Raises:
        HistoryError: No finished arm, the run's settings are missing, or its images have changed.
        DataError: The study's images have gone.
    """
    if holds_only_a_history(folder):
        return write_federation_report(folder)
    return measure_and_report(folder, progress=progress).page


def measure_and_report(
    folder: Path, *, prepared: PreparedStudy | None = None, progress: Progress = silent
) -> Report:
    """Write ``comparison.csv``, ``summary.csv``, ``gains.csv``, ``table.md`` and ``report.html``.

    Args:
        folder: A run folder with at least one finished arm.
        prepared: The study's images, if the caller has them; else they are prepared again.
        progress: Called with the step, and how far it is.

    Raises:
        HistoryError: No finished arm, the run's settings are missing, or its images have changed.
        DataError: The study's images have gone.
    """
    study = kept_study(folder)
    if study is None:
        raise HistoryError(f"No study.json in {folder}.", fix="Give the output folder of a run.")
    if prepared is None:
        prepared = prepare(study, progress=progress)
        hold_images(folder, prepared.manifest)
    comparison = compare(load_arms(folder), resamples=study.compare.bootstrap, progress=progress)
    write_comparison(folder, comparison)
    write_text(folder / TABLE_NAME, markdown(comparison))
    settings = shareable(study)
    report = ReportInput(
        title=study.name,
        study=settings,
        comparison=comparison,
        curves=_curves(folder, study.training.passes),
        shares=shares_of(prepared.manifest),
        audit=_audit(study.data.folder),
        gallery=_gallery(folder, prepared, comparison, progress),
        command="fedlens compare" if len(comparison.arms) > 1 else "fedlens run",
        versions=versions(),
        created=now(),
        notes=(*_sealing(folder), *_notes(settings)),
    )
    save_report(folder / REPORT_NAME, report)
    return Report(folder / REPORT_NAME, comparison)


def _curves(folder: Path, passes: float) -> tuple[TrainingCurve, ...]:
    paths = sorted(folder.glob(f"seed-*/*/{HISTORY_NAME}"))
    return tuple(
        training_curve(
            path.parent.name,
            int(path.parent.parent.name.removeprefix("seed-")),
            read_history(path.parent),
            passes=passes,
        )
        for path in paths
    )


def _sealing(folder: Path) -> tuple[str, ...]:
    """How the updates of the first seed's federated arm travelled."""
    path = next(iter(sorted(folder.glob(f"seed-*/{FEDERATED}/{HISTORY_NAME}"))), None)
    return sealing_notes(read_history(path.parent)) if path is not None else ()


def _audit(data: Path) -> Mapping[str, Any]:
    path = data / "audit.json"
    content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return content


def _gallery(
    folder: Path, prepared: PreparedStudy, comparison: Comparison, progress: Progress
) -> tuple[GalleryItem, ...]:
    """Right and wrong cases of the federated network of the first seed, explained where they lie."""
    arm = folder / f"seed-{comparison.seeds[0]}" / FEDERATED
    if not (arm / PREDICTIONS_NAME).is_file():
        return ()
    cases = choose_cases(load_predictions(arm / PREDICTIONS_NAME))
    rows = {record.image_id: row for row, record in enumerate(prepared.manifest)}
    progress("explain", 0, len(cases))
    maps: dict[str, SaliencyMap] = {}
    for hospital in sorted({case.hospital for case in cases}):
        own = [case for case in cases if case.hospital == hospital]
        maps |= _explain(_model_of(arm, hospital), own, rows, prepared)
    progress("explain", len(cases), len(cases))
    return tuple(_item(case, rows[case.image_id], maps[case.image_id].values, prepared) for case in cases)


def _model_of(arm: Path, hospital: str) -> Path:
    """A hospital's own checkpoint where it has one (FedBN), else the arm's."""
    own = arm / HOSPITALS_NAME / hospital / MODEL_NAME
    return own if own.is_dir() else arm / MODEL_NAME


def _explain(
    model: Path, cases: Sequence[Case], rows: Mapping[str, int], prepared: PreparedStudy
) -> dict[str, SaliencyMap]:
    """Saliency maps of the predicted classes, by image id."""
    network, contract = load_checkpoint(model, classes=prepared.classes)
    pixels = np.stack([prepared.pixels[rows[case.image_id]] for case in cases])
    targets = torch.tensor([contract.classes.index(case.predicted) for case in cases])
    maps = saliency_maps(
        network,
        to_input(torch.from_numpy(pixels)),
        classes=contract.classes,
        files=[case.image_id for case in cases],
        targets=targets,
    )
    return {case.image_id: saliency for case, saliency in zip(cases, maps, strict=True)}


def _item(case: Case, row: int, values: np.ndarray, prepared: PreparedStudy) -> GalleryItem:
    record = prepared.manifest.records[row]
    image = read_record(prepared.manifest, record)
    path = prepared.manifest.mask_path(record)
    mask = read_mask(path) if path is not None and path.is_file() else None
    if mask is not None and (mask.shape != image.shape[:2] or not mask.any()):
        mask = None
    drawn = overlay(image, values, mask=mask)
    return gallery_item(case, image, drawn, outlined=mask is not None)


def _notes(settings: Mapping[str, Any]) -> tuple[str, ...]:
    notes = []
    if settings["federation"]["strategy"] == "fedbn":
        notes.append("FedBN: every hospital decides and explains with its own normalisation layers.")
    if settings["training"]["patience"]:
        notes.append("Early stopping was on: an arm that stopped early passed its images less often.")
    return tuple(notes)
