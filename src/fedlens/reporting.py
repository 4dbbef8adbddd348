"""``fedlens report``: tables, figures and the stand-alone page from what a run folder holds."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedlens.arm_path import FEDERATED
from fedlens.coordinator.history import HISTORY_NAME, read_history
from fedlens.decision.bundle import kept_bundle
from fedlens.errors import HistoryError, UnreadableImageError
from fedlens.explain.overlay import overlay
from fedlens.explain.saliency import SaliencyMap, saliency_maps
from fedlens.explain.straying import reasons_in_words, stray_reasons
from fedlens.explained_arms import EXPLAINABLE, switched_on
from fedlens.explanation_measuring import measure_explanations, model_of
from fedlens.federation_report import REPORT_NAME, holds_only_a_history, write_federation_report
from fedlens.files import write_text
from fedlens.hospital.regions import ImageRegions
from fedlens.imaging.formats import read_record
from fedlens.imaging.outlines import read_outline
from fedlens.imaging.preprocess import to_input
from fedlens.models.checkpoint import load_checkpoint, read_contract
from fedlens.preparation import PreparedStudy, prepare
from fedlens.progress import Progress, silent
from fedlens.reports import explanation_text, paper
from fedlens.reports.comparison import Comparison, compare, load_arms, write_comparison
from fedlens.reports.decision import DecisionResults, decision_results
from fedlens.reports.explanation_comparison import (
    ExplanationComparison,
    compare_explanations,
    load_arm_explanations,
    write_explanation_comparison,
)
from fedlens.reports.explanation_curves import ExplanationCurve, explanation_curve
from fedlens.reports.explanations import EXPLANATIONS_NAME, ExplanationValues, load_explanations
from fedlens.reports.figures import training_curve
from fedlens.reports.gallery import OVERLAY_SIDE, Case, GalleryItem, choose_cases, encode_png, gallery_item
from fedlens.reports.html import ReportInput, main_arm, save_report
from fedlens.reports.predictions import PREDICTIONS_NAME, load_predictions
from fedlens.reports.provenance import now, shareable, versions
from fedlens.reports.sealing import sealing_notes
from fedlens.reports.shares import shares_of
from fedlens.run_folder import MODEL_NAME, hold_images, kept_study
from fedlens.study import Study

TABLE_NAME = "table.md"

_Pixels = npt.NDArray[np.uint8]
_Mask = npt.NDArray[np.bool_]
_History = tuple[str, int, list[dict[str, Any]]]
"""Arm, seed and events."""


@dataclass(frozen=True, eq=False)
class Report:
    """What was written: the page, the figures behind it, and both as Markdown tables."""

    page: Path
    comparison: Comparison
    explanations: ExplanationComparison | None
    table: str


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

    Explanations of test images are measured where they were not yet, and go to ``explanations.csv`` and
    ``explanation_gains.csv``.

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
    measure_explanations(folder, prepared, progress=progress)
    arms = load_arms(folder)
    comparison = compare(arms, resamples=study.compare.bootstrap, progress=progress)
    explanations = compare_explanations(
        load_arm_explanations(folder, arms), resamples=study.compare.bootstrap
    )
    table = _write_tables(folder, comparison, explanations)
    histories = _histories(folder)
    passes = study.training.passes
    settings = shareable(study)
    report = ReportInput(
        title=study.name,
        study=settings,
        comparison=comparison,
        explanations=explanations,
        outlined=_outlined(prepared),
        curves=tuple(training_curve(*history, passes=passes) for history in histories),
        explanation_curves=_explanation_curves(histories, passes),
        shares=shares_of(prepared.manifest),
        audit=_audit(study.data.folder),
        gallery=_gallery(folder, prepared, comparison, progress),
        decision=_decision(folder, comparison, study.compare.bootstrap),
        command="fedlens compare" if len(comparison.arms) > 1 else "fedlens run",
        versions=versions(),
        created=now(),
        notes=(*_sealing(histories), *_notes(study, comparison)),
    )
    save_report(folder / REPORT_NAME, report)
    return Report(folder / REPORT_NAME, comparison, explanations, table)


def _write_tables(folder: Path, comparison: Comparison, explanations: ExplanationComparison | None) -> str:
    write_comparison(folder, comparison)
    table = paper.markdown(comparison)
    if explanations is not None:
        write_explanation_comparison(folder, explanations)
        table += "\n" + explanation_text.markdown(explanations)
    write_text(folder / TABLE_NAME, table)
    return table


def _outlined(prepared: PreparedStudy) -> dict[str, tuple[int, int]]:
    """By hospital its training images with an expert's outline, and all of them."""
    counts = {}
    for hospital in prepared.hospitals:
        outlined = ImageRegions(prepared.images("train", hospital)).outlined
        counts[hospital] = (int(outlined.sum()), len(outlined))
    return counts


def _histories(folder: Path) -> list[_History]:
    """Every history, by seed and then by arm."""
    return [
        (path.parent.name, int(path.parent.parent.name.removeprefix("seed-")), read_history(path.parent))
        for path in sorted(folder.glob(f"seed-*/*/{HISTORY_NAME}"))
    ]


def _explanation_curves(histories: Sequence[_History], passes: float) -> tuple[ExplanationCurve, ...]:
    curves = (explanation_curve(*history, passes=passes) for history in histories)
    return tuple(curve for curve in curves if curve is not None)


def _sealing(histories: Sequence[_History]) -> tuple[str, ...]:
    """How the updates of the first seed's federated arm travelled."""
    events = next((events for arm, _, events in histories if arm == FEDERATED), None)
    return sealing_notes(events) if events is not None else ()


def _audit(data: Path) -> Mapping[str, Any]:
    path = data / "audit.json"
    content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return content


def _gallery(
    folder: Path, prepared: PreparedStudy, comparison: Comparison, progress: Progress
) -> tuple[GalleryItem, ...]:
    """Cases of the main arm's network of the first seed, explained where they lie."""
    arm = folder / f"seed-{comparison.seeds[0]}" / main_arm(comparison)
    if not (arm / PREDICTIONS_NAME).is_file():
        return ()
    values = load_explanations(arm / EXPLANATIONS_NAME) if (arm / EXPLANATIONS_NAME).is_file() else None
    columns = values.columns if values is not None else {}
    straying = columns["strays"] > 0 if "strays" in columns else None
    cases = choose_cases(load_predictions(arm / PREDICTIONS_NAME), straying=straying)
    progress("explain", 0, len(cases))
    rows = {record.image_id: row for row, record in enumerate(prepared.manifest)}
    maps = _maps(arm, cases, rows, prepared, as_decided=True)
    others: dict[str, SaliencyMap] = {}
    other = arm.parent / EXPLAINABLE
    if arm.name == FEDERATED and EXPLAINABLE in comparison.arms and (other / MODEL_NAME).is_dir():
        others = _maps(other, cases, rows, prepared, as_decided=False)
    items = []
    for case in cases:
        image, mask = _image_and_outline(rows[case.image_id], prepared)
        item = _item(case, image, mask, maps[case.image_id], values)
        if case.image_id in others:
            item = _with_other(item, image, mask, others[case.image_id])
        items.append(item)
    progress("explain", len(cases), len(cases))
    return tuple(items)


def _decision(folder: Path, comparison: Comparison, resamples: int) -> DecisionResults | None:
    """Advice of the main arm's network of the first seed, where it was fitted."""
    arm = folder / f"seed-{comparison.seeds[0]}" / main_arm(comparison)
    if not (arm / MODEL_NAME).is_dir():
        return None
    bundle = kept_bundle(arm / MODEL_NAME, read_contract(arm / MODEL_NAME))
    if bundle is None:
        return None
    return decision_results(bundle, load_predictions(arm / PREDICTIONS_NAME), resamples=resamples)


def _maps(
    arm: Path, cases: Sequence[Case], rows: Mapping[str, int], prepared: PreparedStudy, *, as_decided: bool
) -> dict[str, SaliencyMap]:
    """Saliency maps of an arm's networks by image id, of the case's decision or of the network's own."""
    maps: dict[str, SaliencyMap] = {}
    for hospital in sorted({case.hospital for case in cases}):
        own = [case for case in cases if case.hospital == hospital]
        network, contract = load_checkpoint(model_of(arm, hospital), classes=prepared.classes)
        pixels = np.stack([prepared.pixels[rows[case.image_id]] for case in own])
        decided = torch.tensor([contract.classes.index(case.predicted) for case in own])
        found = saliency_maps(
            network,
            to_input(torch.from_numpy(pixels)),
            classes=contract.classes,
            files=[case.image_id for case in own],
            method=prepared.study.explanation.method,
            targets=decided if as_decided else None,
        )
        maps |= {case.image_id: saliency for case, saliency in zip(own, found, strict=True)}
    return maps


def _with_other(item: GalleryItem, image: _Pixels, mask: _Mask | None, saliency: SaliencyMap) -> GalleryItem:
    """The same case with the explainable arm's map beside."""
    name, probability = saliency.ranked()[0]
    said = f"{paper.ARM_LABELS[EXPLAINABLE]}, {name} with {paper.percent(probability, 0)} %"
    picture = encode_png(overlay(image, saliency.values, mask=mask), OVERLAY_SIDE)
    return dataclasses.replace(item, other_png=picture, other=said)


def _image_and_outline(row: int, prepared: PreparedStudy) -> tuple[_Pixels, _Mask | None]:
    record = prepared.manifest.records[row]
    image = read_record(prepared.manifest, record)
    # A damaged outline is as good as none; the import's report has named it.
    with contextlib.suppress(UnreadableImageError):
        return image, read_outline(prepared.manifest, record, image.shape[:2])
    return image, None


def _item(
    case: Case, image: _Pixels, mask: _Mask | None, saliency: SaliencyMap, values: ExplanationValues | None
) -> GalleryItem:
    inside, why = None, ""
    if values is not None:
        energy = values.columns.get("energy", np.full(len(values), np.nan))[case.index]
        inside = None if np.isnan(energy) else float(energy)
        strayed = "strays" in values.columns
        why = reasons_in_words(stray_reasons(values.columns, case.index)) if strayed else ""
    drawn = overlay(image, saliency.values, mask=mask)
    return gallery_item(case, image, drawn, outlined=mask is not None, inside=inside, why=why)


def _notes(study: Study, comparison: Comparison) -> tuple[str, ...]:
    notes = []
    if study.federation.strategy == "fedbn":
        notes.append("FedBN: every hospital decides and explains with its own normalisation layers.")
    if study.training.patience:
        notes.append("Early stopping was on: an arm that stopped early passed its images less often.")
    minded = switched_on(study.explanation)
    if minded and comparison.arms == (FEDERATED,):
        said = ", ".join(f"{name} = {value}" for name, value in minded.items())
        notes.append(f"The network was trained with explanations: {said}.")
    return tuple(notes)
