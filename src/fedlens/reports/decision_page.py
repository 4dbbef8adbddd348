"""What the report's section on advice shows, as text and charts."""

from __future__ import annotations

from dataclasses import dataclass

from fedlens.metrics.calibration import Share
from fedlens.reports.decision import DecisionPart, DecisionResults
from fedlens.reports.decision_figures import coverage_chart, reliability_diagram, risk_chart
from fedlens.reports.page import Picture, picture
from fedlens.reports.paper import percent


@dataclass(frozen=True)
class PartRow:
    """One line of the table by hospital; all cells are text."""

    name: str
    images: str
    ece: str
    ece_interval: str
    coverage: str
    coverage_interval: str
    size: str
    error: str
    rest: str
    reduction: str


@dataclass(frozen=True)
class PointRow:
    """One class at its operating point at one place; all cells are text."""

    label: str
    place: str
    threshold: str
    sensitivity: str
    sensitivity_interval: str
    specificity: str
    specificity_interval: str


@dataclass(frozen=True)
class DecisionView:
    """Text and charts of the section; ``by_class`` has coverage and its interval on images of each class."""

    promised: str
    temperature: str
    validation_images: str
    sensitivity: str
    per_class: bool
    rows: tuple[PartRow, ...]
    points: tuple[PointRow, ...]
    by_class: tuple[tuple[str, str, str], ...]
    empty_sets: str
    reliability: Picture
    coverage: Picture
    risk: Picture


def decision_view(results: DecisionResults) -> DecisionView:
    """The section's content."""
    facts, pooled = results.bundle.facts, results.pooled
    parts = (pooled, *results.hospitals)
    return DecisionView(
        promised=percent(facts.settings.coverage, 0),
        temperature=f"{facts.temperature:.2f}",
        validation_images=f"{facts.validation_images:,}",
        sensitivity=percent(facts.settings.sensitivity, 0),
        per_class=facts.settings.per_class,
        rows=tuple(_row(part) for part in parts),
        points=tuple(
            PointRow(
                point.label,
                part.name,
                percent(point.threshold),
                _share(point.sensitivity),
                _interval(point.sensitivity),
                _share(point.specificity),
                _interval(point.specificity),
            )
            for index in range(len(facts.classes))
            for part in parts
            for point in (part.operating[index],)
        ),
        by_class=tuple((name, _share(share), _interval(share)) for name, share in results.by_class),
        empty_sets=percent(results.sizes[0] / pooled.images),
        reliability=picture(
            reliability_diagram(results),
            f"Reliability diagrams: calibration error {pooled.before.ece:.3f} before and "
            f"{pooled.after.ece:.3f} after scaling.",
        ),
        coverage=picture(
            coverage_chart(results),
            f"Line charts of coverage and set size; promised {percent(facts.settings.coverage, 0)} %, "
            f"found {percent(pooled.coverage.value)} %.",
        ),
        risk=picture(
            risk_chart(results),
            f"Line chart of error against referral: {percent(pooled.referral.error.value)} % without, "
            f"{percent(pooled.referral.error_of_rest.value)} % of the rest with "
            f"{percent(pooled.referral.referred)} % referred.",
        ),
    )


def _row(part: DecisionPart) -> PartRow:
    referral = part.referral
    return PartRow(
        name=part.name,
        images=f"{part.images:,}",
        ece=f"{part.after.ece:.3f}",
        ece_interval=f"{part.after.low:.3f}–{part.after.high:.3f}"
        if part.after.low == part.after.low
        else "",
        coverage=_share(part.coverage),
        coverage_interval=_interval(part.coverage),
        size=f"{part.size:.2f}",
        error=_share(referral.error),
        rest=_share(referral.error_of_rest),
        reduction=percent(referral.reduction, 0) if referral.reduction == referral.reduction else "–",
    )


def _share(share: Share) -> str:
    return percent(share.value) if share.images else "–"


def _interval(share: Share) -> str:
    return f"{percent(share.low)}–{percent(share.high)}" if share.low == share.low else ""
