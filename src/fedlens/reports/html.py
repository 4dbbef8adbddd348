"""The report as one HTML page that needs nothing else: no network, no files beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedlens.files import write_text
from fedlens.reports import figures
from fedlens.reports.comparison import Comparison, Summary
from fedlens.reports.decision import DecisionResults
from fedlens.reports.decision_page import decision_view
from fedlens.reports.explanation_comparison import ExplanationComparison
from fedlens.reports.explanation_curves import ExplanationCurve, explanation_curves
from fedlens.reports.explanation_page import explanation_view
from fedlens.reports.figures import TrainingCurve
from fedlens.reports.gallery import GalleryItem, by_source
from fedlens.reports.headline import headline, tiles
from fedlens.reports.page import Picture, confusion_picture, flat, picture, render
from fedlens.reports.paper import ARM_LABELS, METRICS, footnotes, percent, points, results_table
from fedlens.reports.shares import Share, split_counts

_SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True, eq=False)
class ReportInput:
    """All that a report shows. Text in it may come from file names: it is escaped.

    Attributes:
        title: Heading of the page, e.g. the study's name.
        study: The study's settings as plain data (``Study.model_dump(mode="json")``).
        comparison: Results of every arm; a single run has one arm.
        explanations: Quality of every arm's explanations; None to leave the section out.
        outlined: By hospital its training images with an expert's outline, and all of them.
        curves: How the arms learned; empty to leave the section out.
        explanation_curves: How their maps changed over the rounds.
        shares: Counted from the manifest by :func:`fedlens.reports.shares.shares_of`.
        audit: Content of ``audit.json``; empty where no audit was made.
        gallery: Explained test images; empty to leave the section out.
        decision: How good advice is on test images; None to leave the section out.
        command: The command line that made it.
        versions: Version of each library, and the machine, by name.
        created: Date and time as text.
        notes: Further limits to tell the reader.
    """

    title: str
    study: Mapping[str, Any]
    comparison: Comparison
    explanations: ExplanationComparison | None = None
    outlined: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    curves: tuple[TrainingCurve, ...] = ()
    explanation_curves: tuple[ExplanationCurve, ...] = ()
    shares: tuple[Share, ...] = ()
    audit: Mapping[str, Any] = field(default_factory=dict)
    gallery: tuple[GalleryItem, ...] = ()
    decision: DecisionResults | None = None
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    notes: tuple[str, ...] = ()


def save_report(path: Path, report: ReportInput) -> None:
    """Write the page whole or not at all."""
    write_text(path, render_report(report))


def render_report(report: ReportInput) -> str:
    """The page as HTML text; the same input gives the same page."""
    return render("report.html.j2", _context(report))


def main_arm(comparison: Comparison) -> str:
    """The arm that class figures and the confusion matrix are shown for."""
    return "federated" if "federated" in comparison.arms else comparison.arms[-1]


def _context(report: ReportInput) -> dict[str, Any]:
    comparison = report.comparison
    arm = main_arm(comparison)
    return {
        "report": report,
        "comparison": comparison,
        "headline": headline(comparison, arm),
        "tiles": tiles(comparison, arm),
        "metrics": [*METRICS.values(), "AUROC"],
        "results": results_table(comparison),
        "footnotes": footnotes(comparison),
        "arm_labels": ARM_LABELS,
        "main_arm": arm,
        "parts": _parts(comparison),
        "shown_arms": _shown_arms(comparison),
        "classes": _classes(comparison, arm),
        "pictures": _pictures(report, arm),
        "quality": explanation_view(report.explanations, report.outlined) if report.explanations else None,
        "decision": decision_view(report.decision) if report.decision else None,
        "gallery": by_source(report.gallery),
        "method": report.explanations.method if report.explanations else "grad-cam",
        "splits": split_counts(report.shares),
        "findings": _findings(report.audit),
        "settings": list(flat(report.study)),
        "seeds": len(comparison.seeds),
    }


def _parts(comparison: Comparison) -> list[tuple[str, str, list[Summary]]]:
    """Accuracy and macro F1 of each arm on each hospital's and each source's test images."""
    arms = _shown_arms(comparison)
    rows = []
    for kind, names in (("hospital", comparison.hospitals), ("source", comparison.sources)):
        for name in names:
            figures_of = [
                comparison.summary(arm, f"{kind}:{name}", metric)
                for arm in arms
                for metric in ("accuracy", "f1_macro")
            ]
            if figures_of:
                rows.append((kind, name, figures_of))
    return rows


def _shown_arms(comparison: Comparison) -> list[str]:
    """Arms with a column of their own in the table of parts."""
    left_out = {"local", "explainable"} if comparison.explainable_is_federated else {"local"}
    return [arm for arm in comparison.arms if arm in figures.MAIN_ARMS and arm not in left_out]


def _classes(comparison: Comparison, arm: str) -> list[tuple[str, dict[str, Summary]]]:
    names = ("precision", "recall", "specificity", "f1", "auroc")
    return [
        (scope.removeprefix("class:"), {name: comparison.summary(arm, scope, name) for name in names})
        for scope in comparison.scopes(arm, "class")
    ]


def _pictures(report: ReportInput, arm: str) -> dict[str, Picture]:
    comparison = report.comparison
    pictures = {"bars": picture(figures.arm_bars(comparison), _bars_alt(comparison))}
    if comparison.gains:
        alt = "; ".join(
            f"{f'hospital {gain.hospital}' if gain.hospital else 'all hospitals'} "
            f"{points(gain.result.difference)} points"
            for gain in comparison.gains
        )
        pictures["gains"] = picture(
            figures.hospital_gains(comparison), f"Bar chart of accuracy gained over training alone: {alt}."
        )
    if arm in comparison.confusions:
        pictures["confusion"] = confusion_picture(comparison.confusions[arm], comparison.classes)
    if report.curves:
        pictures["curves"] = picture(
            figures.training_curves(report.curves), "Line charts of validation accuracy and loss over passes."
        )
    if report.explanation_curves:
        pictures["explanation_curves"] = picture(
            explanation_curves(report.explanation_curves),
            "Line charts of explanation quality on validation images over passes.",
        )
    if report.shares:
        pictures["balance"] = picture(
            figures.class_balance(report.shares), "Table of images of each class at each hospital."
        )
    return pictures


def _bars_alt(comparison: Comparison) -> str:
    rows = [
        f"{row.label} {', '.join(percent(entry.mean) for entry in row.ours[: len(METRICS)])} measured here"
        + (f" and {', '.join(map(percent, row.paper))} reported by the paper" if row.paper else "")
        for row in results_table(comparison)
    ]
    return f"Bar chart of {', '.join(METRICS.values())} in percent: {'; '.join(rows)}."


def _findings(audit: Mapping[str, Any]) -> list[tuple[str, str, str, int]]:
    """Severity, title, detail of the audit's findings, and how many more of that title follow."""
    kept: dict[tuple[str, str], list[str]] = {}
    for finding in audit.get("findings", []):
        kept.setdefault((finding["severity"], finding["title"]), []).append(finding["detail"])
    ordered = sorted(kept.items(), key=lambda entry: _SEVERITIES.index(entry[0][0]))
    return [(severity, title, details[0], len(details) - 1) for (severity, title), details in ordered]
