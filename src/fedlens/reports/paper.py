"""The paper's results beside ours, never mixed up with them.

The figures are those of EFDL section 6 ("Intelligent Medical Image Analysis Using Secure and
Explainable Federated Deep Learning"). Its splits and its trained model are not published, so they
can be quoted, not reproduced.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fedlens.reports.comparison import Comparison, Summary

MEASURED = "measured here"
REPORTED = "reported by the paper"
REPORTED_NOTE = (
    "Reported by the paper (EFDL, section 6), not reproduced: its splits and its trained model are not "
    "published, so its test images differ from ours."
)
AVERAGING_NOTE = (
    "Precision, recall and F1 are macro averages over the classes that have test images; the paper does "
    "not say how it averages."
)
IDENTICAL_NOTE = (
    "The explainable arm gave the very same probabilities as the federated one: nothing that it trains with "
    "acted on these images, as a loss on outlines where no image has one."
)
ARM_LABELS: Mapping[str, str] = {
    "local": "Each hospital alone (mean)",
    "central": "Central",
    "federated": "Federated",
    "explainable": "Explainable federated",
    "explainable-outline": "Outline loss alone",
    "explainable-field": "Field loss alone",
    "explainable-consistency": "Consistency loss alone",
    "explainable-weighting": "Weighting alone",
}
METRICS: Mapping[str, str] = {
    "accuracy": "Accuracy",
    "precision_macro": "Precision",
    "recall_macro": "Recall",
    "f1_macro": "F1",
}
"""The four metrics that the paper reports, and their names there."""

PAPER_RESULTS: Mapping[str, Mapping[str, float]] = {
    arm: dict(zip(METRICS, values, strict=True))
    for arm, values in {
        "central": (0.934, 0.928, 0.921, 0.924),
        "federated": (0.946, 0.941, 0.938, 0.939),
        "explainable": (0.961, 0.957, 0.953, 0.955),
    }.items()
}


@dataclass(frozen=True)
class ResultRow:
    """One arm of the results table.

    Attributes:
        arm: As in :data:`ARM_LABELS`.
        label: The arm in words.
        ours: What was measured here, in the order of :data:`METRICS`, then ``auroc_macro``.
        paper: What the paper reports, in the order of :data:`METRICS`; None for an arm it lacks.
    """

    arm: str
    label: str
    ours: tuple[Summary, ...]
    paper: tuple[float, ...] | None


def results_table(comparison: Comparison) -> tuple[ResultRow, ...]:
    """The arms that were run, in the paper's order, on all hospitals' test images."""
    rows = []
    for arm, label in ARM_LABELS.items():
        if arm in comparison.arms:
            ours = tuple(comparison.summary(arm, "pooled", name) for name in (*METRICS, "auroc_macro"))
            reported = PAPER_RESULTS.get(arm)
            rows.append(ResultRow(arm, label, ours, tuple(reported.values()) if reported else None))
    return tuple(rows)


def footnotes(comparison: Comparison) -> tuple[str, ...]:
    """What a reader of the results table has to know."""
    seeds = len(comparison.seeds)
    spread = f"± is the standard deviation over {seeds} training seeds" if seeds > 1 else "one training seed"
    intervals = (
        f"Ours: {comparison.images:,} test images of {comparison.groups:,} patients, lesions or clusters of "
        "copies, none of which has an image in training. Ranges are 95 % bootstrap intervals that resample "
        f"those groups; {spread}."
    )
    notes = [intervals, AVERAGING_NOTE]
    if set(comparison.arms) & set(PAPER_RESULTS):
        notes.append(REPORTED_NOTE)
    if comparison.explainable_is_federated:
        notes.append(IDENTICAL_NOTE)
    return tuple(notes)


def percent(value: float, digits: int = 1) -> str:
    """``0.9461`` as ``94.6``; a dash where undefined."""
    return "–" if math.isnan(value) else f"{100 * value:.{digits}f}"


def points(value: float) -> str:
    """A difference of shares as signed percentage points: ``+3.2``."""
    if math.isnan(value):
        return "–"
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def p_text(value: float) -> str:
    """A p-value as people write it."""
    return "< 0.01" if value < 0.01 else f"{value:.2f}"


def cell(summary: Summary) -> str:
    """``92.1 ± 0.3 (91.0–93.1)``; without ± for one seed and without brackets where undefined."""
    spread = "" if math.isnan(summary.spread) else f" ± {percent(summary.spread)}"
    interval = "" if math.isnan(summary.low) else f" ({percent(summary.low)}–{percent(summary.high)})"
    return f"{percent(summary.mean)}{spread}{interval}"


def markdown(comparison: Comparison) -> str:
    """The results table and the hospitals' gains as Markdown, for README and docs/results.md."""
    names = [*METRICS.values(), "AUROC"]
    lines = [
        "| Arm | Source | " + " | ".join(f"{name}, %" for name in names) + " |",
        "|---|---|" + "---:|" * len(names),
    ]
    for row in results_table(comparison):
        lines.append(f"| **{row.label}** | {MEASURED} | " + " | ".join(map(cell, row.ours)) + " |")
        if row.paper:
            reported = " | ".join(percent(value) for value in row.paper)
            lines.append(f"| | *{REPORTED}* | {reported} | – |")
    lines += ["", *(f"- {note}" for note in footnotes(comparison))]
    if comparison.gains:
        lines += ["", *_gains_markdown(comparison)]
    return "\n".join(lines) + "\n"


def _gains_markdown(comparison: Comparison) -> list[str]:
    lines = [
        "| Hospital | Test images | Alone, % | Federated, % | Gain, points | 95 % interval | p |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for gain in comparison.gains:
        result = gain.result
        name = gain.hospital.replace("|", "\\|").replace("\n", " ") or "**All, each on its own**"
        lines.append(
            f"| {name} | {result.images // len(comparison.seeds):,} | {percent(result.second)} "
            f"| {percent(result.first)} | {points(result.difference)} "
            f"| {points(result.low)} to {points(result.high)} | {p_text(result.p_value)} |"
        )
    note = "- Accuracy on each hospital's own test images: its own network against the federated one, paired."
    return [*lines, "", note]
