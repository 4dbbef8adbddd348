"""Where a network fails, as its own test figures show it: for the reader who must decide about its use."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fedlens.reports.comparison import Comparison, Summary
from fedlens.reports.explanation_comparison import ExplanationComparison
from fedlens.reports.headline import range_text
from fedlens.reports.paper import percent
from fedlens.reports.predictions import Predictions
from fedlens.reports.shares import Share

FEW = 100
"""Fewer training images of a class than this are named."""

SURE = 0.9
"""From this probability on a decision counts as sure."""

_MOST = 3


def known_failures(
    comparison: Comparison,
    arm: str,
    *,
    predictions: Sequence[Predictions] = (),
    shares: Sequence[Share] = (),
    explanations: ExplanationComparison | None = None,
    stray_by_class: Mapping[str, float] | None = None,
) -> tuple[str, ...]:
    """Sentences on the worst classes, confusions, hospitals, data sets and maps; plain text.

    Args:
        comparison: Of all arms.
        arm: Whose network it is about.
        predictions: Of that arm, one for each seed.
        shares: Images of each hospital, class and split.
        explanations: Of all arms.
        stray_by_class: Share of stray maps by true class.
    """
    return (
        *_classes(comparison, arm),
        *_confusions(comparison, arm),
        *_sure_errors(predictions),
        *_parts(comparison, arm, "hospital"),
        *_parts(comparison, arm, "source"),
        *_few(shares),
        *_maps(arm, explanations, stray_by_class or {}),
    )


def _classes(comparison: Comparison, arm: str) -> Iterator[str]:
    """The classes found least often, as far as they lie below the mean."""
    found = [comparison.summary(arm, scope, "recall") for scope in comparison.scopes(arm, "class")]
    rates = sorted((entry for entry in found if not math.isnan(entry.mean)), key=lambda entry: entry.mean)
    mean = float(np.mean([entry.mean for entry in rates])) if rates else 0.0
    for entry in [entry for entry in rates if entry.mean < mean][:_MOST]:
        name = entry.scope.removeprefix("class:")
        yield (
            f"Class {name} is missed in {percent(1 - entry.mean)} % of its {entry.images:,} test images: "
            f"sensitivity {_with_range(entry)}; the mean over classes is {percent(mean)} %."
        )


def _confusions(comparison: Comparison, arm: str) -> Iterator[str]:
    """The most frequent wrong decisions, by their share of the true class."""
    counts = comparison.confusions.get(arm)
    if counts is None:
        return
    wrong = counts * (1 - np.eye(len(counts), dtype=np.int64))
    shares = wrong / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    seeds = f", over {len(comparison.seeds)} seeds" if len(comparison.seeds) > 1 else ""
    for place in np.argsort(-shares, axis=None, kind="stable")[:_MOST]:
        true, decided = np.unravel_index(place, shares.shape)
        if wrong[true, decided] < 2 * len(comparison.seeds):
            return
        yield (
            f"{comparison.classes[true]} is taken for {comparison.classes[decided]} in "
            f"{int(counts[true, decided]):,} of {int(counts[true].sum()):,} test images"
            f" ({percent(float(shares[true, decided]))} %{seeds})."
        )


def _sure_errors(predictions: Sequence[Predictions]) -> Iterator[str]:
    wrong = sum(int((~each.right).sum()) for each in predictions)
    sure = sum(int((~each.right & (each.probabilities.max(axis=1) >= SURE)).sum()) for each in predictions)
    if sure:
        yield (
            f"A high probability is no proof: {sure:,} of {wrong:,} wrong decisions had a probability of "
            f"{percent(SURE, 0)} % or more."
        )


def _parts(comparison: Comparison, arm: str, kind: str) -> Iterator[str]:
    """Hospitals or data sets below the accuracy of all test images: all clear ones, or else the lowest."""
    pooled = comparison.summary(arm, "pooled", "accuracy")
    scopes = comparison.scopes(arm, kind)
    if len(scopes) < 2:
        return
    entries = sorted(
        (comparison.summary(arm, scope, "accuracy") for scope in scopes), key=lambda entry: entry.mean
    )
    clear = [entry for entry in entries if entry.high < pooled.mean]
    lower = [entry for entry in entries[:1] if entry.mean < pooled.mean]
    for entry in clear or lower:
        name = entry.scope.partition(":")[2]
        what = f"hospital {name}" if kind == "hospital" else f"data set {name}"
        doubt = "" if clear else "; these images cannot tell that from chance"
        yield (
            f"On the {entry.images:,} test images of {what} accuracy is {_with_range(entry)}, against "
            f"{percent(pooled.mean)} % on all{doubt}."
        )


def _few(shares: Sequence[Share]) -> Iterator[str]:
    """Classes with few training images, and hospitals that have none of a class."""
    train = [share for share in shares if share.split == "train"]
    labels = sorted({share.label for share in shares})
    hospitals = sorted({share.hospital for share in shares})
    by_class = {label: sum(share.images for share in train if share.label == label) for label in labels}
    scarce = [f"{label} ({count:,})" for label, count in by_class.items() if count < FEW]
    if scarce:
        yield f"Few training images, below {FEW}, of: {', '.join(scarce)}."
    held = {(share.hospital, share.label) for share in train if share.images}
    for hospital in hospitals:
        without = [label for label in labels if (hospital, label) not in held]
        if without:
            yield f"Hospital {hospital} had no training image of: {', '.join(without)}."


def _maps(
    arm: str, explanations: ExplanationComparison | None, stray_by_class: Mapping[str, float]
) -> Iterator[str]:
    if explanations is None:
        return
    strays = explanations.summary(arm, "pooled", "strays")
    if strays is not None and strays.mean > 0:
        worst = max(stray_by_class, key=stray_by_class.__getitem__, default="")
        most = f"; most often for {worst}, {percent(stray_by_class[worst])} %" if worst else ""
        yield (
            f"{percent(strays.mean)} % of the maps stray: off the body, onto letters, frames or hairs{most}. "
            "There the decision may rest on what is no sign of disease."
        )
    pointing = explanations.summary(arm, "pooled", "pointing")
    if pointing is not None:
        yield (
            f"In {percent(1 - pointing.mean)} % of the {pointing.images:,} test images with an expert's "
            "outline the hottest place of the map lies outside it."
        )


def stray_shares(
    true: npt.NDArray[np.int64], strays: npt.NDArray[np.float64], classes: Sequence[str]
) -> dict[str, float]:
    """Share of stray maps by true class; classes without a measured map are left out.

    Args:
        true: (N,) index of the true class.
        strays: (N,) 1 where a map strays, 0 where not, NaN where undefined.
        classes: Names in the order of the indices.
    """
    found = {}
    for index, name in enumerate(classes):
        values = strays[(true == index) & np.isfinite(strays)]
        if len(values):
            found[name] = float(values.mean())
    return found


def _with_range(entry: Summary) -> str:
    # Where all images are decided alike, resampling them says nothing.
    if entry.low == entry.high:
        return f"{percent(entry.mean)} %"
    return f"{percent(entry.mean)} %{range_text(entry)}"
