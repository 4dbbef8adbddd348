"""The report of a study that ran between machines: of its settings and history, all that came back."""

from __future__ import annotations

from pathlib import Path

from fedlens.arm_path import arm_path
from fedlens.coordinator.history import HISTORY_NAME, Event, read_history
from fedlens.errors import HistoryError
from fedlens.files import write_text
from fedlens.reports.federation import FederationInput, render_federation
from fedlens.reports.predictions import PREDICTIONS_NAME
from fedlens.reports.provenance import now, shareable, versions
from fedlens.run_folder import kept_study
from fedlens.study import Study

REPORT_NAME = "report.html"


def holds_only_a_history(folder: Path) -> bool:
    """Whether a run folder has a finished history and nothing else to measure: no predictions anywhere.

    Raises:
        HistoryError: Its settings or history are damaged.
    """
    study = kept_study(folder)
    if study is None or any(folder.glob(f"seed-*/*/{PREDICTIONS_NAME}")):
        return False
    return bool(_finished(folder, study))


def write_federation_report(folder: Path) -> Path:
    """Write ``report.html`` from a run folder's settings and finished history; returns the page's path.

    Raises:
        HistoryError: Settings or history are missing or damaged, or the run has not finished.
    """
    study = kept_study(folder)
    if study is None:
        raise HistoryError(f"No study.json in {folder}.", fix="Give the output folder of a run.")
    events = _finished(folder, study)
    if not events:
        raise HistoryError(
            f"No finished federated run in {folder}.",
            fix="Follow the study to its end: fedlens resume STUDY --follow",
        )
    report = FederationInput(
        title=study.name, study=shareable(study), events=events, versions=versions(), created=now()
    )
    write_text(folder / REPORT_NAME, render_federation(report))
    return folder / REPORT_NAME


def _finished(folder: Path, study: Study) -> list[Event]:
    """All events of the federated arm, if it has come to its end; else none."""
    arm = arm_path(folder, study)
    events = read_history(arm) if (arm / HISTORY_NAME).is_file() else []
    return events if events and events[-1]["event"] == "end" else []
