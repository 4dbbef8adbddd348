"""``fedlens compare``: every arm of a study on the same splits with the same budget of image passes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedlens.arm_path import FEDERATED
from fedlens.arms import CENTRAL, arm_folder, train_arm
from fedlens.files import write_bytes
from fedlens.preparation import PreparedStudy, prepare
from fedlens.progress import Progress, silent
from fedlens.reporting import measure_and_report
from fedlens.reports.measures import LOCAL
from fedlens.reports.paper import markdown
from fedlens.reports.predictions import PREDICTIONS_NAME
from fedlens.run_folder import hold_images, keep_study, run_folder
from fedlens.study import Study

EXPLAINABLE = "explainable"


@dataclass(frozen=True)
class CompareResult:
    """A finished comparison.

    Attributes:
        folder: The run folder (see :mod:`fedlens.run_folder`).
        report: The stand-alone page.
        table: The paper's results table with ours beside it, Markdown.
        csv: One figure a line, for every seed, arm and scope.
    """

    folder: Path
    report: Path
    table: str
    csv: Path


def compare(study: Study, *, progress: Progress = silent) -> CompareResult:
    """Train the arms of ``study.compare`` for each of its seeds, and write tables and report.

    Finished arms and rounds are kept: the same call goes on after an interruption. The arm
    ``explainable`` is the federated network with Grad-CAM at every hospital; training that uses
    explanations is not part of it yet, so its predictions are the federated ones.

    Raises:
        DataError: The images cannot be used as asked.
        HistoryError: The run folder holds arms of other settings.
    """
    folder = run_folder(study)
    prepared = prepare(study, progress=progress)
    hold_images(folder, prepared.manifest)
    keep_study(study, folder)
    for seed in study.compare.seeds:
        seeded = study.model_copy(update={"seed": seed})
        _train_arms(
            PreparedStudy(seeded, prepared.manifest, prepared.pixels, prepared.classes, prepared.hospitals),
            progress,
        )
    report = measure_and_report(folder, prepared=prepared, progress=progress)
    return CompareResult(folder, report.page, markdown(report.comparison), folder / "comparison.csv")


def _train_arms(prepared: PreparedStudy, progress: Progress) -> None:
    wanted = prepared.study.compare.arms
    names: list[str] = [CENTRAL] if CENTRAL in wanted else []
    if FEDERATED in wanted or EXPLAINABLE in wanted:
        names.append(FEDERATED)
    if "local" in wanted:
        names += [LOCAL + hospital for hospital in prepared.hospitals]
    for done, name in enumerate(names):
        progress(f"arms, seed {prepared.study.seed}", done, len(names))
        train_arm(prepared, name, resume=True, progress=progress)
    progress(f"arms, seed {prepared.study.seed}", len(names), len(names))
    if EXPLAINABLE in wanted:
        federated = arm_folder(prepared.study, FEDERATED) / PREDICTIONS_NAME
        write_bytes(arm_folder(prepared.study, EXPLAINABLE) / PREDICTIONS_NAME, federated.read_bytes())
