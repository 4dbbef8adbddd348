"""Sections of the model card on probabilities and on explanations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from fedlens.metrics.calibration import Reliability, Share, reliability
from fedlens.reports.decision import DecisionResults
from fedlens.reports.document import Block, Items, Section, Table, Text
from fedlens.reports.explanation_comparison import ExplanationComparison
from fedlens.reports.explanation_text import (
    ARROWS,
    explanation_notes,
    interval_text,
    shown_figures,
    value_text,
)
from fedlens.reports.paper import percent
from fedlens.reports.predictions import Predictions


def calibration_section(decision: DecisionResults | None, predictions: Sequence[Predictions]) -> Section:
    """Whether probabilities mean what they say, and what was fitted to mend it."""
    blocks = _fitted(decision) if decision is not None else _unfitted(predictions)
    return Section("calibration", "Calibration", tuple(blocks))


def explanation_section(explanations: ExplanationComparison | None, arm: str) -> Section:
    """How good this network's maps are, beside maps that know nothing."""
    if explanations is None or arm not in explanations.arms:
        nothing = Text("No map of this network was measured. Measure them with: fedlens report RUN")
        return Section("explanations", "Explanation quality", (nothing,))
    rows = []
    for figure in shown_figures(explanations):
        entry = explanations.summary(arm, "pooled", figure.name)
        if entry is not None:
            rows.append(
                (
                    f"{figure.title[:1].upper()}{figure.title[1:]} {ARROWS[figure.better]}",
                    value_text(figure, entry.mean),
                    interval_text(figure, entry.low, entry.high) or "–",
                    value_text(figure, entry.chance),
                    value_text(figure, entry.centre),
                    f"{entry.images:,}",
                )
            )
    columns = ("Measure", "This network", "95 % interval", "Random map", "Hot in the middle", "Images")
    table = Table("Maps of test images, percent or multiples of chance (×)", columns, tuple(rows))
    notes = Items(explanation_notes(explanations)[:1])
    return Section("explanations", "Explanation quality", (table, *_by_hospital(explanations, arm), notes))


def _by_hospital(explanations: ExplanationComparison, arm: str) -> Iterator[Table]:
    shown = {figure.name: figure for figure in shown_figures(explanations)}
    figures = [shown[name] for name in ("pointing", "energy", "strays") if name in shown]
    scopes = explanations.scopes("hospital")
    if len(scopes) < 2 or not figures:
        return
    rows = []
    for scope in scopes:
        cells = []
        for figure in figures:
            entry = explanations.summary(arm, scope, figure.name)
            cells.append("–" if entry is None else value_text(figure, entry.mean))
        rows.append((scope.partition(":")[2], *cells))
    headings = (f"{figure.short} {ARROWS[figure.better]}" for figure in figures)
    yield Table("Maps by hospital, percent", ("Hospital", *headings), tuple(rows))


def _unfitted(predictions: Sequence[Predictions]) -> Iterator[Block]:
    """The network's own probabilities; those of the first seed, whose network this is."""
    if not predictions:
        yield Text("Nothing is known of the probabilities.")
        return
    first = predictions[0]
    found = reliability(first.probabilities.max(axis=1), first.right, first.groups, binning="mass")
    yield Text(
        "Probabilities are the network's own: no temperature was fitted for it. On test images "
        f"{_gap(found)} They claim {percent(_mean_claim(found))} % on average and hold for "
        f"{percent(float(first.right.mean()))} %."
    )


def _fitted(decision: DecisionResults) -> Iterator[Block]:
    facts, pooled = decision.bundle.facts, decision.pooled
    before, after = decision.mass
    yield Text(
        f"A temperature of {facts.temperature:.3f}, fitted on {facts.validation_images:,} validation images "
        f"of {facts.hospitals} hospitals, divides logits; it changes no decision. Before, on test images, "
        f"{_gap(before)} After, {_gap(after)}"
    )
    referral, settings = pooled.referral, facts.settings
    sets = (
        f"Sets that shall hold the true class of {percent(settings.coverage, 0)} % of the images hold that "
        f"of {_share(pooled.coverage)}, with {pooled.size:.2f} classes on average."
    )
    referred = (
        f"Referring the {percent(referral.referred)} % least certain images to a specialist brings the error "
        f"on the rest from {_share(referral.error)} to {_share(referral.error_of_rest)}."
    )
    yield Items((sets, referred))
    yield Table(
        f"Operating points, chosen on validation images for a sensitivity of "
        f"{percent(settings.sensitivity, 0)} %",
        ("Class", "Probability from", "Sensitivity", "Specificity"),
        tuple(
            (
                point.label,
                f"{point.threshold:.3f}",
                _share(point.sensitivity),
                _share(point.specificity),
            )
            for point in pooled.operating
        ),
    )
    yield Table(
        "By hospital",
        ("Hospital", "Test images", "Calibration error", "Sets hold the true class"),
        tuple(
            (part.name, f"{part.images:,}", f"{percent(part.after.ece)} %", _share(part.coverage))
            for part in decision.hospitals
        ),
    )


def _gap(found: Reliability) -> str:
    interval = "" if math.isnan(found.low) else f" (95 % interval {percent(found.low)}–{percent(found.high)})"
    return (
        f"the expected calibration error is {percent(found.ece)} points{interval}; chance alone would make "
        f"about {percent(found.floor)}."
    )


def _mean_claim(found: Reliability) -> float:
    filled = found.counts > 0
    return float(np.average(found.confidence[filled], weights=found.counts[filled]))


def _share(share: Share) -> str:
    interval = "" if math.isnan(share.low) else f" ({percent(share.low)}–{percent(share.high)})"
    return f"{percent(share.value)} %{interval}"
