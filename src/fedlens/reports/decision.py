"""How good advice is on test images: calibration, coverage, referral and operating points, by hospital.

Everything was fitted on validation images; nothing here is chosen on test images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedlens.decision.bundle import DecisionBundle
from fedlens.decision.conformal import Score
from fedlens.decision.rules import Rules
from fedlens.decision.scores import log_odds, log_probabilities
from fedlens.errors import DataError
from fedlens.metrics.calibration import (
    Reliability,
    Share,
    covered,
    reliability,
    risk_by_referral,
    risk_reduction,
    set_sizes,
    share_of,
)
from fedlens.metrics.intervals import Interval
from fedlens.reports.predictions import Predictions

Floats = npt.NDArray[np.float64]

COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)
"""Promises that coverage and set size are shown for."""

REFERRAL_RATE = 0.2
"""Share of images referred where one figure is to say what referral is worth."""

RATES: Floats = np.linspace(0, 0.5, 51)
SCORES: tuple[Score, ...] = ("lac", "aps")


@dataclass(frozen=True)
class CoveragePoint:
    """What sets of one promise came to.

    Attributes:
        promised: Share of images whose set shall hold the true class.
        coverage: Share whose set does.
        size: Mean number of classes in a set.
    """

    promised: float
    coverage: Share
    size: float


@dataclass(frozen=True)
class OperatingPoint:
    """One class against the rest at the threshold chosen on validation images.

    Attributes:
        label: The class.
        threshold: Calibrated probability from which on it counts as found.
        sensitivity: On test images of the class.
        specificity: On all others.
    """

    label: str
    threshold: float
    sensitivity: Share
    specificity: Share


@dataclass(frozen=True)
class Referral:
    """What referring the least certain images does.

    Attributes:
        asked: Share of validation images below the threshold.
        referred: Share of test images below it.
        error: Share of wrong decisions among all test images.
        error_of_rest: Among those that are not referred.
        reduction: Relative, 0.35 for 35 %; NaN where nothing was wrong.
        interval: 95 % interval of the reduction.
    """

    asked: float
    referred: float
    error: Share
    error_of_rest: Share
    reduction: float
    interval: Interval


@dataclass(frozen=True, eq=False)
class DecisionPart:
    """Figures of all test images, or of one hospital's.

    Attributes:
        name: Hospital; empty for all.
        images: Test images.
        before: Reliability of the network's own probabilities, in 15 bins of equal width.
        after: Of the calibrated ones.
        coverage: Of the sets as the settings say.
        size: Their mean number of classes.
        referral: At ``REFERRAL_RATE``.
        operating: By class.
    """

    name: str
    images: int
    before: Reliability
    after: Reliability
    coverage: Share
    size: float
    referral: Referral
    operating: tuple[OperatingPoint, ...]


@dataclass(frozen=True, eq=False)
class DecisionResults:
    """All figures of one network.

    Attributes:
        bundle: What was fitted.
        pooled: Of all test images.
        hospitals: By hospital.
        by_class: Coverage on images of each class.
        sizes: int64 (C + 1,): sets of 0, 1, ... C classes.
        curves: By score, coverage and size for every promise.
        risk: (51,) error of the rest by referral rate 0..0.5, the least certain test images first.
        mass: Reliability before and after in 15 bins of equally many images.
    """

    bundle: DecisionBundle
    pooled: DecisionPart
    hospitals: tuple[DecisionPart, ...]
    by_class: tuple[tuple[str, Share], ...]
    sizes: npt.NDArray[np.int64]
    curves: dict[Score, tuple[CoveragePoint, ...]]
    risk: Floats
    mass: tuple[Reliability, Reliability]


def decision_results(
    bundle: DecisionBundle, predictions: Predictions, *, resamples: int = 1000
) -> DecisionResults:
    """Hold what was fitted on validation images against test images.

    Args:
        bundle: Of the network that made the predictions.
        predictions: On test images, as the network gives them.
        resamples: Of groups, for intervals.

    Raises:
        DataError: Predictions of other classes, or none.
    """
    if predictions.classes != bundle.facts.classes or not len(predictions):
        raise DataError(
            f"Advice for classes {list(bundle.facts.classes)} cannot be held against these predictions.",
            why=f"They are {len(predictions)} of classes {list(predictions.classes)}.",
        )
    rules = bundle.rules()
    log_p = log_probabilities(predictions.probabilities)
    calibrated = rules.scaled(log_p)
    hit = covered(rules.conformal.sets(calibrated), predictions.true)
    right = predictions.right
    before, after = (
        reliability(np.exp(values).max(1), right, predictions.groups, binning="mass", resamples=resamples)
        for values in (log_p, calibrated)
    )
    return DecisionResults(
        bundle=bundle,
        pooled=_part("", bundle, predictions, resamples),
        hospitals=tuple(
            _part(name, bundle, predictions.of_hospital(name), resamples)
            for name in sorted(set(predictions.hospitals.tolist()))
        ),
        by_class=tuple(
            (name, share_of(hit, predictions.groups, predictions.true == index, resamples=resamples))
            for index, name in enumerate(predictions.classes)
        ),
        sizes=set_sizes(rules.conformal.sets(calibrated)),
        curves={
            score: tuple(_coverage(bundle, predictions, calibrated, score, resamples)) for score in SCORES
        },
        risk=risk_by_referral(log_odds(calibrated).max(1), right, RATES),
        mass=(before, after),
    )


def _part(name: str, bundle: DecisionBundle, predictions: Predictions, resamples: int) -> DecisionPart:
    rules = bundle.rules()
    log_p = log_probabilities(predictions.probabilities)
    calibrated = rules.scaled(log_p)
    sets = rules.conformal.sets(calibrated)
    groups, right = predictions.groups, predictions.right
    before, after = (
        reliability(np.exp(values).max(1), right, groups, resamples=resamples)
        for values in (log_p, calibrated)
    )
    return DecisionPart(
        name=name,
        images=len(predictions),
        before=before,
        after=after,
        coverage=share_of(covered(sets, predictions.true), groups, resamples=resamples),
        size=float(sets.sum(1).mean()),
        referral=_referral(bundle, predictions, calibrated, resamples),
        operating=tuple(_operating(rules, predictions, calibrated, resamples)),
    )


def _coverage(
    bundle: DecisionBundle, predictions: Predictions, calibrated: Floats, score: Score, resamples: int
) -> Iterator[CoveragePoint]:
    for promised in COVERAGES:
        settings = bundle.facts.settings.model_copy(update={"coverage": promised, "score": score})
        sets = bundle.rules(settings).conformal.sets(calibrated)
        share = share_of(covered(sets, predictions.true), predictions.groups, resamples=resamples)
        yield CoveragePoint(promised, share, float(sets.sum(1).mean()))


def _referral(
    bundle: DecisionBundle, predictions: Predictions, calibrated: Floats, resamples: int
) -> Referral:
    settings = bundle.facts.settings.model_copy(update={"referral_rate": REFERRAL_RATE})
    referred = bundle.rules(settings).uncertain(calibrated)
    right, groups = predictions.right, predictions.groups
    reduction, interval = risk_reduction(referred, right, groups, resamples=resamples)
    return Referral(
        asked=REFERRAL_RATE,
        referred=float(referred.mean()),
        error=share_of(~right, groups, resamples=resamples),
        error_of_rest=share_of(~right, groups, ~referred, resamples=resamples),
        reduction=reduction,
        interval=interval,
    )


def _operating(
    rules: Rules, predictions: Predictions, calibrated: Floats, resamples: int
) -> Iterator[OperatingPoint]:
    found = rules.found(calibrated)
    thresholds = rules.thresholds()
    for index, name in enumerate(predictions.classes):
        own = predictions.true == index
        yield OperatingPoint(
            name,
            thresholds[name],
            share_of(found[:, index], predictions.groups, own, resamples=resamples),
            share_of(~found[:, index], predictions.groups, ~own, resamples=resamples),
        )


def flat_figures(results: DecisionResults) -> dict[str, float]:
    """Names and values for a table or JSON; undefined values are left out."""
    figures = {
        "temperature": results.bundle.facts.temperature,
        "validation_images": float(results.bundle.facts.validation_images),
        "ece_mass_before": results.mass[0].ece,
        "ece_mass_after": results.mass[1].ece,
        "ece_mass_floor": results.mass[1].floor,
    }
    for part in (results.pooled, *results.hospitals):
        start = f"{part.name}_" if part.name else ""
        figures |= {f"{start}{name}": value for name, value in _flat_part(part)}
    for name, share in results.by_class:
        figures[f"coverage_{name}"] = share.value
    for score, points in results.curves.items():
        for point in points:
            figures[f"{score}_{point.promised:g}_coverage"] = point.coverage.value
            figures[f"{score}_{point.promised:g}_size"] = point.size
    return {name: value for name, value in figures.items() if np.isfinite(value)}


def _flat_part(part: DecisionPart) -> Sequence[tuple[str, float]]:
    referral = part.referral
    found = [
        ("images", float(part.images)),
        ("ece_before", part.before.ece),
        ("ece_after", part.after.ece),
        ("ece_after_low", part.after.low),
        ("ece_after_high", part.after.high),
        ("ece_floor", part.after.floor),
        ("coverage", part.coverage.value),
        ("coverage_low", part.coverage.low),
        ("coverage_high", part.coverage.high),
        ("set_size", part.size),
        ("referred", referral.referred),
        ("error", referral.error.value),
        ("error_of_rest", referral.error_of_rest.value),
        ("error_reduction", referral.reduction),
        ("error_reduction_low", referral.interval.low),
        ("error_reduction_high", referral.interval.high),
    ]
    for point in part.operating:
        for name, share in (("sensitivity", point.sensitivity), ("specificity", point.specificity)):
            key = f"{point.label}_{name}"
            found += [(key, share.value), (f"{key}_low", share.low), (f"{key}_high", share.high)]
    return found
