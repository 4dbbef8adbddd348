"""The audit report as plain text."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedlens.imaging.source_cues import TELLING_AUROC

if TYPE_CHECKING:
    from fedlens.imaging.audit import AuditReport

_WIDTH = 100
_CUES_SHOWN = 8


def render(report: AuditReport) -> str:
    """The report as text of 100 columns, without colours."""
    out = io.StringIO()
    console = Console(file=out, width=_WIDTH, color_system=None, force_terminal=False, highlight=False)
    console.print(_summary(report))
    for column, table in report.balance.items():
        if table:
            console.print(_balance(column, table))
    if report.cues:
        console.print(_cues(report))
    for finding in report.findings:
        console.print()
        console.print(f"{finding.severity.upper()}  {escape(finding.title)}", markup=True)
        console.print(escape(finding.detail), soft_wrap=False)
        for image in finding.images:
            console.print(f"  {escape(image)}", soft_wrap=True)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _summary(report: AuditReport) -> Table:
    counts = dict.fromkeys(("error", "warning", "note"), 0)
    for finding in report.findings:
        counts[finding.severity] += 1
    table = Table(box=None, show_header=False)
    for name, value in (
        ("images", f"{report.images}"),
        ("patients or lone images", f"{report.groups}"),
        ("clusters", f"{report.clusters}, the largest of {report.largest_cluster} images"),
        ("copies", f"{report.copies} beyond the first, in {report.copy_groups} groups"),
        ("findings", ", ".join(f"{count} {name}{'s' * (count != 1)}" for name, count in counts.items())),
    ):
        table.add_row(name, value)
    return table


def _balance(column: str, counts: dict[str, dict[str, int]]) -> Table:
    """Images by label and value; the longer of both runs down the page."""
    values, labels = list(counts), sorted({label for row in counts.values() for label in row})
    upright = len(labels) >= len(values)
    rows, columns = (labels, values) if upright else (values, labels)
    table = Table(title=f"\nImages by {column} and label", box=box.SIMPLE, title_justify="left")
    table.add_column("label" if upright else column, overflow="fold")
    for name in (*map(escape, columns), "all"):
        table.add_column(name, justify="right", overflow="fold")
    for row in rows:
        pairs = [(name, row) if upright else (row, name) for name in columns]
        cells = [counts[value].get(label, 0) for value, label in pairs]
        table.add_row(escape(row), *map(str, cells), str(sum(cells)))
    return table


def _cues(report: AuditReport) -> Table:
    title = f"\nClasses told apart by source cues (reported from AUROC {TELLING_AUROC})"
    table = Table(title=title, box=box.SIMPLE, title_justify="left")
    for name in ("modality", "class", "cue"):
        table.add_column(name, overflow="fold")
    for name in ("AUROC", "median", "median of the rest"):
        table.add_column(name, justify="right")
    for score in report.cues[:_CUES_SHOWN]:
        medians = ["" if value is None else f"{value:.5g}" for value in (score.median, score.median_rest)]
        table.add_row(
            escape(score.modality), escape(score.label), escape(score.cue), f"{score.auroc:.3f}", *medians
        )
    return table
