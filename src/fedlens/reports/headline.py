"""The result in one paragraph and a few large numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedlens.metrics import Difference
from fedlens.reports.comparison import Comparison, Summary
from fedlens.reports.paper import ARM_LABELS, percent, points

_NBSP = "\u00a0"


@dataclass(frozen=True)
class Tile:
    """One large number: what it is, its value and what to set it against."""

    name: str
    value: str
    note: str


def headline(comparison: Comparison, arm: str) -> str:
    """What was trained, by whom, and how well it does; plain text."""
    accuracy = comparison.summary(arm, "pooled", "accuracy")
    count = len(comparison.hospitals)
    hospitals = f"{count} hospital{'' if count == 1 else 's'}"
    who = {
        "federated": f"{hospitals} trained one network together, exchanging weights and never images.",
        "central": f"One network was trained on the images of {hospitals}, brought together.",
        "local": f"Each of {hospitals} trained a network on its own images alone.",
    }.get(arm, f"The arm {ARM_LABELS.get(arm, arm).lower()} was trained with {hospitals}.")
    sentences = [
        who,
        f"On {comparison.images:,} test images, kept apart from training by patient, it decides "
        f"{percent(accuracy.mean)} % rightly{range_text(accuracy)}.",
    ]
    if arm == "federated" and comparison.against_central is not None:
        sentences.append(_against_central(comparison.against_central))
    if arm == "federated" and comparison.gains:
        sentences.append(_against_alone(comparison))
    return " ".join(sentences).replace(" %", f"{_NBSP}%")


def tiles(comparison: Comparison, arm: str) -> tuple[Tile, ...]:
    """Accuracy, macro F1 and AUROC of the main arm, and what federation gained and cost."""
    accuracy, f1, area = (
        comparison.summary(arm, "pooled", name) for name in ("accuracy", "f1_macro", "auroc_macro")
    )
    found = [
        Tile("Accuracy", f"{percent(accuracy.mean)} %", note_text(accuracy)),
        Tile("F1 (macro)", f"{percent(f1.mean)} %", note_text(f1)),
        Tile("AUROC (macro)", f"{percent(area.mean)} %", note_text(area)),
    ]
    if arm == "federated" and comparison.gains:
        gain = comparison.gains[-1].result
        found.append(Tile("Gain over alone", f"{points(gain.difference)} pts", _points_range(gain)))
    if arm == "federated" and comparison.against_central is not None:
        against = comparison.against_central
        found.append(Tile("Against central", f"{points(against.difference)} pts", _points_range(against)))
    return tuple(found)


def _against_central(result: Difference) -> str:
    # The ends are compared as they are shown, so that text and number cannot contradict each other.
    low, high = round(100 * result.low, 1), round(100 * result.high, 1)
    said = (
        "which these images cannot tell from none"
        if math.isnan(result.low) or low <= 0 <= high
        else f"clearly {'better' if result.difference > 0 else 'worse'}"
    )
    return (
        f"A network trained on all images in one place reaches {percent(result.second)} %: federation "
        f"differs by {points(result.difference)} points ({_points_range(result)}), {said}."
    )


def _against_alone(comparison: Comparison) -> str:
    single = [gain for gain in comparison.gains if gain.hospital]
    better = sum(gain.result.low > 0 for gain in single)
    total = comparison.gains[-1].result
    return (
        f"On their own patients the hospitals' own networks reach {percent(total.second)} %, the federated "
        f"one {percent(total.first)} %; the gain is clear of zero at {better} of {len(single)} hospitals."
    )


def range_text(entry: Summary) -> str:
    """A figure's interval, to stand behind it in a sentence; empty where there is none."""
    if math.isnan(entry.low):
        return ""
    return f" (95{_NBSP}% interval {percent(entry.low)}–{percent(entry.high)}{_NBSP}%)"


def note_text(entry: Summary) -> str:
    """A figure's interval, to stand below it."""
    if math.isnan(entry.low):
        return "no interval: too few patients"
    return f"95{_NBSP}%: {percent(entry.low)}–{percent(entry.high)}{_NBSP}%"


def _points_range(result: Difference) -> str:
    if math.isnan(result.low):
        return "no interval: too few patients"
    return f"95{_NBSP}%: {points(result.low)} to {points(result.high)}"
