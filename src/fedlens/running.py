"""``fedlens run``: one federated training from a study file to a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedlens.arm_path import FEDERATED
from fedlens.arms import arm_folder, train_arm
from fedlens.coordinator.deciding import advice_said
from fedlens.coordinator.history import HISTORY_NAME
from fedlens.coordinator.rounds import Watch, nobody
from fedlens.errors import HistoryError
from fedlens.metrics import confusion_matrix, summarise
from fedlens.preparation import prepare
from fedlens.progress import Progress, silent
from fedlens.reporting import measure_and_report
from fedlens.run_folder import hold_images, keep_study, run_folder
from fedlens.study import Study


@dataclass(frozen=True)
class RunResult:
    """A finished federated run.

    Attributes:
        folder: The run folder (see :mod:`fedlens.run_folder`).
        metrics: Figures on the test images of all hospitals, 0..1.
        report: The stand-alone page.
        advice: Whether advice was fitted across hospitals, or why not, in a sentence; may be empty.
    """

    folder: Path
    metrics: Mapping[str, float]
    report: Path
    advice: str


def run(
    study: Study, *, resume: bool = False, watch: Watch = nobody, progress: Progress = silent
) -> RunResult:
    """Train one classifier across the study's hospitals and report on it.

    Args:
        study: Read by ``load_study``.
        resume: Go on after an interruption; the final weights are those of an uninterrupted run.
        watch: Called with each finished round's event, as in ``history.jsonl``.
        progress: Called with the step, and how far it is.

    Raises:
        HistoryError: The run folder holds a run already and ``resume`` is not set, or it is of
            other settings.
        DataError: The images cannot be used as asked.
        NotEnoughHospitalsError: Too few hospitals answered.
    """
    folder = run_folder(study)
    history = arm_folder(study, FEDERATED) / HISTORY_NAME
    if history.exists() and not resume:
        raise HistoryError(
            f"{history.parent} holds a run already.",
            fix="Go on with it: --resume. Or choose another output in the study file.",
        )
    prepared = prepare(study, progress=progress)
    hold_images(folder, prepared.manifest)
    keep_study(study, folder)
    result = train_arm(prepared, FEDERATED, resume=resume, watch=watch, progress=progress)
    predictions = result.predictions
    confusion = confusion_matrix(predictions.true, predictions.predicted, len(predictions.classes))
    report = measure_and_report(folder, prepared=prepared, progress=progress)
    said = advice_said(result.rounds.history)
    return RunResult(folder, summarise(confusion), report.page, said)
