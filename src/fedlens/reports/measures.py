"""One arm's figures with their resampled draws, on every part of the test images."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedlens.metrics import (
    CLASS_RATES,
    SUMMARY,
    auroc,
    class_rates,
    confusion_matrix,
    macro_auroc,
    resample_aurocs,
    resample_confusions,
    summaries,
    summarise,
)
from fedlens.metrics.classification import Floats
from fedlens.metrics.intervals import AUROC_RESAMPLES
from fedlens.reports.predictions import Predictions

LOCAL = "local-"
SCOPE_METRICS = (*SUMMARY, "auroc_macro")
CLASS_METRICS = (*CLASS_RATES, "auroc")


@dataclass(frozen=True, eq=False)
class Measure:
    """Figures on one set of images: ``values`` in 0..1, ``drawn`` the same in each bootstrap resample."""

    images: int
    values: dict[str, float]
    drawn: dict[str, Floats]


Measures = dict[tuple[str, str], Measure]
"""By arm and scope, see :class:`fedlens.reports.comparison.Row`."""


def measure_arm(
    arm: str,
    predictions: Predictions,
    hospitals: Sequence[str],
    sources: Sequence[str],
    *,
    resamples: int,
    seed: int,
) -> Measures:
    """Measure one arm on all images and on those of each hospital, source and class that has any."""
    parts = {
        "pooled": predictions,
        **{f"hospital:{name}": predictions.of_hospital(name) for name in hospitals},
        **{f"source:{name}": predictions.of_source(name) for name in sources},
    }
    # A scope's own seed: draws of different hospitals stay independent, those of different arms paired.
    measures: Measures = {}
    for number, (scope, part) in enumerate(parts.items()):
        if len(part):
            whole, classes = _measure(part, resamples, seed + number)
            measures[arm, scope] = whole
            if scope == "pooled":
                measures |= {(arm, f"class:{name}"): measure for name, measure in classes.items()}
    return measures


def _measure(predictions: Predictions, resamples: int, seed: int) -> tuple[Measure, dict[str, Measure]]:
    """Figures over all classes, and of each class that has images against the rest."""
    true, predicted, groups = predictions.true, predictions.predicted, predictions.groups
    count = len(predictions.classes)
    confusion = confusion_matrix(true, predicted, count)
    confusions = resample_confusions(true, predicted, groups, count, resamples=resamples, seed=seed)
    areas = auroc(true, predictions.probabilities)
    drawn_areas = resample_aurocs(
        true, predictions.probabilities, groups, resamples=min(resamples, AUROC_RESAMPLES), seed=seed
    )
    whole = Measure(
        len(predictions),
        {**summarise(confusion), "auroc_macro": float(macro_auroc(areas))},
        {**summaries(confusions), "auroc_macro": macro_auroc(drawn_areas)},
    )
    rates = {**class_rates(confusion), "auroc": areas}
    drawn_rates = {**class_rates(confusions), "auroc": drawn_areas}
    classes = {
        name: Measure(
            int(confusion[index].sum()),
            {metric: float(rates[metric][index]) for metric in CLASS_METRICS},
            {metric: drawn_rates[metric][:, index] for metric in CLASS_METRICS},
        )
        for index, name in enumerate(predictions.classes)
        if confusion[index].any()
    }
    return whole, classes


def derived_measures(measures: Measures, hospitals: Sequence[str]) -> Measures:
    """The arm ``local``, and the scope ``own`` of every arm."""
    alone = sorted({arm for arm, _ in measures if arm.startswith(LOCAL)})
    whole = sorted({arm for arm, _ in measures} - set(alone))
    derived: Measures = {}
    if alone:
        for scope in dict.fromkeys(scope for arm, scope in measures if arm == alone[0]):
            if not scope.startswith("hospital:"):
                derived["local", scope] = mean_measure([measures[arm, scope] for arm in alone])
    owners = {arm: [(arm, f"hospital:{name}") for name in hospitals] for arm in whole}
    owners["local"] = [(arm, f"hospital:{arm.removeprefix(LOCAL)}") for arm in alone]
    for arm, places in owners.items():
        own = [measures[place] for place in places if place in measures]
        if own:
            mean = mean_measure(own)
            derived[arm, "own"] = Measure(sum(part.images for part in own), mean.values, mean.drawn)
    return derived


def mean_measure(measures: Sequence[Measure]) -> Measure:
    """Mean of values, and of draws one by one, which keeps what the measures have in common."""
    names = measures[0].values
    return Measure(
        measures[0].images,
        {name: statistics.fmean(measure.values[name] for measure in measures) for name in names},
        {name: _mean_draws([measure.drawn[name] for measure in measures]) for name in names},
    )


def _mean_draws(drawn: Sequence[Floats]) -> Floats:
    """Hospitals too small to resample leave the mean without an interval."""
    if any(values.size != drawn[0].size for values in drawn):
        return np.zeros(0)
    mean: Floats = np.mean(drawn, axis=0)
    return mean
