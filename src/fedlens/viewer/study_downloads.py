"""Files of a study that its page hands out: a fixed list, so that no request names a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedlens.coordinator.history import HISTORY_NAME
from fedlens.federation_report import REPORT_NAME
from fedlens.viewer.study_files import StudyFiles
from fedlens.viewer.study_state import ArmState


@dataclass(frozen=True)
class Download:
    """One file.

    Attributes:
        name: In the address, and of the file that the browser keeps.
        about: What it holds.
        kind: Media type.
        path: Where it lies.
    """

    name: str
    about: str
    kind: str
    path: Path


_FILES = (
    (REPORT_NAME, "the report: one page with tables, figures and heat maps", "text/html"),
    ("table.md", "the table of arms, Markdown", "text/markdown"),
    ("summary.csv", "every figure over all seeds", "text/csv"),
    ("comparison.csv", "every figure of each seed", "text/csv"),
    ("gains.csv", "what federation gained at each hospital", "text/csv"),
    ("explanations.csv", "quality of every arm's explanations", "text/csv"),
    ("explanation_gains.csv", "what training with explanations changed", "text/csv"),
)


def downloads(files: StudyFiles, shown: ArmState | None) -> tuple[Download, ...]:
    """Those that are there: of the study, and the history of the arm that is looked at."""
    found = [Download(name, about, kind, files.root / name) for name, about, kind in _FILES]
    if shown is not None and shown.place is not None:
        path = shown.place.folder / HISTORY_NAME
        found.append(
            Download(HISTORY_NAME, "all rounds of this arm, one event a line", "application/jsonl", path)
        )
    return tuple(download for download in found if download.path.is_file())
