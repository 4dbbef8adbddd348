"""Explanation quality in words, and as Markdown for ``table.md``."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fedlens.reports.explanation_comparison import (
    ExplanationComparison,
    ExplanationGain,
    ExplanationSummary,
)
from fedlens.reports.explanation_figures import ACCURACY, EXPLANATION_FIGURES, FIGURES, Figure
from fedlens.reports.paper import ARM_LABELS, percent, points

ARROWS = {"higher": "↑", "lower": "↓"}
RANDOM_MAP = "A random map"
CENTRE_MAP = "A map hot in the middle"


def value_text(figure: Figure, value: float) -> str:
    """A figure's value: ``41.3`` percent, or ``2.31×`` chance; a dash where undefined."""
    if figure.unit == "share" or math.isnan(value):
        return percent(value)
    return f"{value:.2f}×"


def difference_text(figure: Figure, value: float) -> str:
    """A difference: percentage points, or multiples of chance, with its sign."""
    if figure.unit == "share" or math.isnan(value):
        return points(value)
    text = f"{value:+.2f}×"
    return "0.00×" if text in ("+0.00×", "-0.00×") else text.replace("-", "−")


def mean_text(figure: Figure, entry: ExplanationSummary) -> str:
    """Mean over seeds, and the spread where there are several: ``41.3 ± 2.0``."""
    spread = "" if math.isnan(entry.spread) else f" ± {value_text(figure, entry.spread).removesuffix('×')}"
    return f"{value_text(figure, entry.mean)}{spread}"


def interval_text(figure: Figure, low: float, high: float) -> str:
    """``38.0–44.2``; empty where there is none."""
    if math.isnan(low):
        return ""
    return f"{value_text(figure, low).removesuffix('×')}–{value_text(figure, high)}"


def range_text(figure: Figure, low: float, high: float) -> str:
    """``−0.3 to +4.1``: the ends of a difference; empty where there are none."""
    if math.isnan(low):
        return ""
    return f"{difference_text(figure, low).removesuffix('×')} to {difference_text(figure, high)}"


def shown_figures(comparison: ExplanationComparison) -> tuple[Figure, ...]:
    """Figures of explanations that some arm has on all test images."""
    found = {entry.figure for entry in comparison.summaries if entry.scope == "pooled"}
    return tuple(figure for figure in EXPLANATION_FIGURES if figure.name in found)


def baselines(
    comparison: ExplanationComparison, scope: str = "pooled"
) -> tuple[tuple[str, dict[str, float]], ...]:
    """Rows of the two maps that know nothing, with a value for each figure."""
    entries = {entry.figure: entry for entry in comparison.summaries if entry.scope == scope}
    return (
        (RANDOM_MAP, {name: entry.chance for name, entry in entries.items()}),
        (CENTRE_MAP, {name: entry.centre for name, entry in entries.items()}),
    )


def explanation_notes(comparison: ExplanationComparison) -> tuple[str, ...]:
    """What a reader of the tables has to know."""
    outlined = (
        f"pointing, energy inside, rank and overlap over the {comparison.outlined:,} of them with an "
        "expert's outline"
        if comparison.outlined
        else "none of them has an expert's outline, so nothing says whether maps lie where they should"
    )
    notes = [
        f"Maps by {comparison.method}, for the class that the network decides on, over {comparison.images:,} "
        f"test images; {outlined}. ↑ higher is better, ↓ lower is better. Ranges are 95 % bootstrap "
        "intervals that resample patients, lesions or clusters of copies.",
    ]
    if comparison.gains:
        seeds = len(comparison.seeds)
        drawn = (
            f"patients and the {seeds} training seeds"
            if seeds > 1
            else "patients; with one training seed, chance in training is not covered"
        )
        notes.append(
            "Better and worse: the difference from the federated arm on the same images has p < 0.05 in a "
            "paired bootstrap test; no effect seen: it has not, which does not prove that there is none. "
            f"Resampled are {drawn}. Not corrected for the number of comparisons."
        )
    return tuple(notes)


def markdown(comparison: ExplanationComparison) -> str:
    """Quality of every arm's explanations, and what training with them changes, as Markdown."""
    shown = shown_figures(comparison)
    lines = [
        "| Explanations | "
        + " | ".join(f"{figure.short} {ARROWS[figure.better]}" for figure in shown)
        + " |",
        "|---|" + "---:|" * len(shown),
    ]
    for arm in comparison.arms:
        entries = [comparison.summary(arm, "pooled", figure.name) for figure in shown]
        cells = [_cell(figure, entry) for figure, entry in zip(shown, entries, strict=True)]
        lines.append(f"| **{ARM_LABELS.get(arm, arm)}** | " + " | ".join(cells) + " |")
    for name, values in baselines(comparison):
        cells = [value_text(figure, values.get(figure.name, math.nan)) for figure in shown]
        lines.append(f"| *{name}* | " + " | ".join(cells) + " |")
    lines += ["", *(f"- {note}" for note in explanation_notes(comparison))]
    if comparison.gains:
        lines += ["", *_gains_markdown(comparison, comparison.explained_arms)]
    return "\n".join(lines) + "\n"


def _gains_markdown(comparison: ExplanationComparison, arms: Sequence[str]) -> list[str]:
    labels = [ARM_LABELS.get(arm, arm) for arm in arms]
    lines = [
        "| Against federated | " + " | ".join(labels) + " |",
        "|---|" + "---|" * len(arms),
    ]
    for figure in FIGURES:
        gains = [comparison.gain(arm, "pooled", figure.name) for arm in arms]
        if any(gains):
            name = "Accuracy" if figure.name == ACCURACY else figure.short
            cells = " | ".join(_gain(figure, gain) for gain in gains)
            lines.append(f"| {name} {ARROWS[figure.better]} | {cells} |")
    return lines


def _cell(figure: Figure, entry: ExplanationSummary | None) -> str:
    if entry is None:
        return "–"
    interval = interval_text(figure, entry.low, entry.high)
    return f"{mean_text(figure, entry)}{f' ({interval})' if interval else ''}"


def _gain(figure: Figure, gain: ExplanationGain | None) -> str:
    if gain is None:
        return "–"
    between = range_text(figure, gain.low, gain.high)
    interval = f" ({between})" if between else ""
    said = f"{difference_text(figure, gain.difference)}{interval}, p {p_words(gain.p_value)}"
    return f"{said}: **{gain.verdict}**"


def p_words(value: float) -> str:
    """``= 0.12``, ``= 0.047`` near what counts as an effect, or ``< 0.01``."""
    if value < 0.01:
        return "< 0.01"
    return f"= {value:.3f}" if value < 0.1 else f"= {value:.2f}"
