"""``fedlens compare``: every arm of a study on the same splits with the same budget of image passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedlens.arms import CENTRAL, train_arm
from fedlens.explained_arms import FEDERATION_ARMS, arm_explanation
from fedlens.preparation import PreparedStudy, prepare
from fedlens.progress import Progress, silent
from fedlens.reporting import measure_and_report
from fedlens.reports.measures import LOCAL
from fedlens.run_folder import hold_images, keep_study, run_folder
from fedlens.study import Study


@dataclass(frozen=True)
class CompareResult:
    """A finished comparison.

    Attributes:
        folder: The run folder (see :mod:`fedlens.run_folder`).
        report: The stand-alone page.
        table: The paper's results table with ours beside it, and how good each arm's explanations are,
            Markdown.
        csv: One figure a line, for every seed, arm and scope.
    """

    folder: Path
    report: Path
    table: str
    csv: Path


def compare(study: Study, *, progress: Progress = silent) -> CompareResult:
    """Train the arms of ``study.compare`` for each of its seeds, and write tables and report.

    Finished arms and rounds are kept: the same call goes on after an interruption. What each arm minds of
    explanations is in :mod:`fedlens.explained_arms`: ``federated`` nothing, whatever the study says.

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
        _train_arms(dataclasses.replace(prepared, study=seeded), progress)
    report = measure_and_report(folder, prepared=prepared, progress=progress)
    return CompareResult(folder, report.page, report.table, folder / "comparison.csv")


def arm_names(study: Study, hospitals: Sequence[str]) -> tuple[str, ...]:
    """The arms that a comparison trains for each seed, in order.

    Args:
        study: Names the arms in ``compare.arms``.
        hospitals: Each of which trains alone too, where the study asks for that.
    """
    wanted = study.compare.arms
    alone = [LOCAL + hospital for hospital in hospitals] if "local" in wanted else []
    return tuple([name for name in (CENTRAL, *FEDERATION_ARMS) if name in wanted] + alone)


def _train_arms(prepared: PreparedStudy, progress: Progress) -> None:
    study = prepared.study
    names = arm_names(study, prepared.hospitals)
    for done, name in enumerate(names):
        progress(f"arms, seed {study.seed}", done, len(names))
        arm = study.model_copy(update={"explanation": arm_explanation(study.explanation, name)})
        train_arm(dataclasses.replace(prepared, study=arm), name, resume=True, progress=progress)
    progress(f"arms, seed {study.seed}", len(names), len(names))
