"""From every arm's predictions to one tidy table of results.

An arm is ``local-<hospital>`` (trained on one hospital's images alone), ``central``, ``federated``, or
``explainable`` and its kin (:mod:`fedlens.explained_arms`); every arm predicts the test images of all
hospitals. Training alone is looked at in two ways: each hospital's network on everyone's test images
(scope ``pooled``), and on its own hospital's (scope ``own``), where each is at its best.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from fedlens.errors import HistoryError
from fedlens.explained_arms import FEDERATION_ARMS
from fedlens.files import write_text
from fedlens.metrics import Difference, confusion_matrix, interval_of, paired_difference
from fedlens.metrics.classification import Counts
from fedlens.progress import Progress, silent
from fedlens.reports.measures import LOCAL, Measures, derived_measures, mean_measure, measure_arm
from fedlens.reports.predictions import PREDICTIONS_NAME, Predictions, load_predictions

ARM_ORDER = ("local", "central", *FEDERATION_ARMS)
"""Arms in the order of tables."""


@dataclass(frozen=True, eq=False)
class ArmPredictions:
    """What one arm, trained with one seed, said about the test images."""

    seed: int
    arm: str
    predictions: Predictions


@dataclass(frozen=True)
class Row:
    """One figure of one arm and seed.

    Attributes:
        seed: Training seed.
        arm: As in the module docstring; ``local`` is the mean over the hospitals' networks.
        scope: ``pooled``, ``own`` (mean over hospitals, each on its own images), ``hospital:A``,
            ``source:x`` or ``class:y``.
        images: Images measured on; for a class its support.
        metric: One of ``SCOPE_METRICS``, or of ``CLASS_METRICS`` for a class (see ``measures.py``).
        value: 0..1, NaN where undefined.
        low: Lower end of the 95 % interval.
        high: Upper end.
    """

    seed: int
    arm: str
    scope: str
    images: int
    metric: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """One figure of one arm over all seeds.

    Attributes:
        seeds: Training seeds.
        mean: Mean over the seeds.
        spread: Standard deviation over the seeds; NaN for one.
        low: Lower end of the 95 % interval of the mean, from resampling test groups.
        high: Upper end.
    """

    arm: str
    scope: str
    images: int
    metric: str
    seeds: int
    mean: float
    spread: float
    low: float
    high: float


@dataclass(frozen=True)
class Gain:
    """Federated (first) against training alone (second) on one hospital's own test images.

    ``hospital`` is empty for all hospitals together. Images count once for each seed.
    """

    hospital: str
    result: Difference


@dataclass(frozen=True, eq=False)
class Comparison:
    """All results of one comparison, or of one run with a single arm.

    Attributes:
        classes: Class names in the order of the network's outputs.
        arms: Those of :data:`ARM_ORDER` that there are; ``local`` if any hospital trained alone.
        seeds: Training seeds.
        hospitals: Sorted.
        sources: Sorted.
        images: Test images.
        groups: Patients, lesions or clusters among them.
        rows: One for each seed, arm, scope and metric.
        summaries: The same over all seeds.
        gains: One for each hospital, then one for all; empty without both arms.
        against_central: Federated (first) against central (second) on all test images.
        confusions: (C, C) counts on all test images summed over seeds, by arm.
        explainable_is_federated: Both arms gave the very same probabilities.
    """

    classes: tuple[str, ...]
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    hospitals: tuple[str, ...]
    sources: tuple[str, ...]
    images: int
    groups: int
    rows: tuple[Row, ...]
    summaries: tuple[Summary, ...]
    gains: tuple[Gain, ...]
    against_central: Difference | None
    confusions: Mapping[str, Counts]
    explainable_is_federated: bool

    def summary(self, arm: str, scope: str, metric: str) -> Summary:
        """One figure over all seeds.

        Raises:
            HistoryError: The comparison has no such figure.
        """
        for entry in self.summaries:
            if (entry.arm, entry.scope, entry.metric) == (arm, scope, metric):
                return entry
        raise HistoryError(
            f"The comparison has no {metric} of arm {arm} on {scope}.",
            fix="Run the comparison with that arm.",
        )

    def scopes(self, arm: str, kind: str) -> tuple[str, ...]:
        """Scopes of one kind (``hospital``, ``source``, ``class``) that an arm was measured on."""
        found = (entry.scope for entry in self.summaries if entry.arm == arm)
        return tuple(dict.fromkeys(scope for scope in found if scope.startswith(f"{kind}:")))


def load_arms(folder: Path) -> tuple[ArmPredictions, ...]:
    """Every ``seed-<n>/<arm>/predictions.parquet`` under a comparison's folder, sorted by seed and arm.

    Raises:
        HistoryError: No predictions, or a torn file.
    """
    found = []
    for path in folder.glob(f"seed-*/*/{PREDICTIONS_NAME}"):
        seed = path.parts[-3].removeprefix("seed-")
        if seed.isdecimal():
            found.append(ArmPredictions(int(seed), path.parts[-2], load_predictions(path)))
    if not found:
        raise HistoryError(f"No finished arm under {folder}.", fix="Run: fedlens compare STUDY")
    return tuple(sorted(found, key=lambda arm: (arm.seed, arm.arm)))


def compare(
    arms: Sequence[ArmPredictions], *, resamples: int = 1000, seed: int = 0, progress: Progress = silent
) -> Comparison:
    """Measure every arm on the same test images.

    Args:
        arms: At least one; arms of one seed must have predicted the same images.
        resamples: Bootstrap resamples of the 95 % intervals (AUROC uses fewer).
        seed: Of the bootstrap, not of training.

    Raises:
        HistoryError: No arms, or arms that disagree on images or classes.
    """
    arms = [ArmPredictions(entry.seed, entry.arm, _in_order(entry.predictions)) for entry in arms]
    _check_same_images(arms)
    first = arms[0].predictions
    hospitals = tuple(map(str, np.unique(first.hospitals)))
    sources = tuple(map(str, np.unique(first.sources)))
    by_seed: dict[int, Measures] = {}
    for done, entry in enumerate(arms):
        progress("measure arms", done, len(arms))
        by_seed.setdefault(entry.seed, {}).update(
            measure_arm(entry.arm, entry.predictions, hospitals, sources, resamples=resamples, seed=seed)
        )
    progress("measure arms", len(arms), len(arms))
    for measures in by_seed.values():
        measures.update(derived_measures(measures, hospitals))
    return Comparison(
        classes=first.classes,
        arms=_arms_in_order(entry.arm for entry in arms),
        seeds=tuple(by_seed),
        hospitals=hospitals,
        sources=sources,
        images=len(first),
        groups=len(np.unique(first.groups)),
        rows=tuple(row for number, measures in by_seed.items() for row in _rows(number, measures)),
        summaries=tuple(_summaries(list(by_seed.values()))),
        gains=_gains(arms, hospitals, resamples, seed),
        against_central=_against_central(arms, resamples, seed),
        confusions=_confusions(arms),
        explainable_is_federated=_is_federated(arms),
    )


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """Write ``comparison.csv`` (each seed), ``summary.csv`` (over seeds) and ``gains.csv``, each whole."""
    write_text(folder / "comparison.csv", csv_text(_names(Row), map(astuple, comparison.rows)))
    write_text(folder / "summary.csv", csv_text(_names(Summary), map(astuple, comparison.summaries)))
    gains = ((gain.hospital or "all", *astuple(gain.result)) for gain in comparison.gains)
    columns = ["hospital", "federated", "alone", *_names(Difference)[2:]]
    write_text(folder / "gains.csv", csv_text(columns, gains))


def _in_order(predictions: Predictions) -> Predictions:
    """Sorted by image id, so that resamples of different arms draw the same images."""
    return predictions.take(np.argsort(predictions.image_ids, kind="stable"))


def _check_same_images(arms: Sequence[ArmPredictions]) -> None:
    if not arms:
        raise HistoryError("There are no arms to compare.", fix="Run: fedlens compare STUDY")
    for entry in arms:
        reference = next(other for other in arms if other.seed == entry.seed).predictions
        same = (
            entry.predictions.classes == arms[0].predictions.classes
            and np.array_equal(entry.predictions.image_ids, reference.image_ids)
            and np.array_equal(entry.predictions.true, reference.true)
        )
        if not same or len(entry.predictions) == 0:
            raise HistoryError(
                f"Arm {entry.arm} of seed {entry.seed} was tested on other images or classes than the rest.",
                why="Figures can only be compared on the same test images.",
                fix="Run the whole comparison again, into an empty folder.",
            )


def _arms_in_order(names: Iterable[str]) -> tuple[str, ...]:
    present = {"local" if name.startswith(LOCAL) else name for name in names}
    return tuple(arm for arm in ARM_ORDER if arm in present)


def _rows(seed: int, measures: Measures) -> Iterable[Row]:
    for (arm, scope), measure in measures.items():
        for metric, value in measure.values.items():
            low, high = interval_of(measure.drawn[metric])
            yield Row(seed, arm, scope, measure.images, metric, value, low, high)


def _summaries(seeds: Sequence[Measures]) -> Iterable[Summary]:
    for arm, scope in dict.fromkeys(place for measures in seeds for place in measures):
        parts = [measures[arm, scope] for measures in seeds if (arm, scope) in measures]
        mean = mean_measure(parts)
        for metric, value in mean.values.items():
            each = [part.values[metric] for part in parts]
            spread = statistics.stdev(each) if len(each) > 1 else float("nan")
            low, high = interval_of(mean.drawn[metric])
            yield Summary(arm, scope, mean.images, metric, len(parts), value, spread, low, high)


def _gains(
    arms: Sequence[ArmPredictions], hospitals: Sequence[str], resamples: int, seed: int
) -> tuple[Gain, ...]:
    """Seeds are put one after another: a patient drawn brings the results of all seeds."""
    found = {(entry.seed, entry.arm): entry.predictions for entry in arms}
    parts: dict[str, list[tuple[Predictions, Predictions]]] = {}
    for (number, arm), alone in found.items():
        name = arm.removeprefix(LOCAL)
        together = found.get((number, "federated"))
        if arm.startswith(LOCAL) and name in hospitals and together is not None:
            parts.setdefault(name, []).append((together.of_hospital(name), alone.of_hospital(name)))
    if not parts:
        return ()
    gains = [Gain(name, _paired(pairs, resamples, seed)) for name, pairs in parts.items()]
    everyone = [pair for pairs in parts.values() for pair in pairs]
    return (*gains, Gain("", _paired(everyone, resamples, seed)))


def _against_central(arms: Sequence[ArmPredictions], resamples: int, seed: int) -> Difference | None:
    found = {(entry.seed, entry.arm): entry.predictions for entry in arms}
    pairs = [
        (found[number, "federated"], found[number, "central"])
        for number, arm in found
        if arm == "federated" and (number, "central") in found
    ]
    return _paired(pairs, resamples, seed) if pairs else None


def _paired(pairs: Sequence[tuple[Predictions, Predictions]], resamples: int, seed: int) -> Difference:
    return paired_difference(
        np.concatenate([first.right for first, _ in pairs]),
        np.concatenate([second.right for _, second in pairs]),
        np.concatenate([first.groups for first, _ in pairs]),
        resamples=resamples,
        seed=seed,
    )


def _confusions(arms: Sequence[ArmPredictions]) -> dict[str, Counts]:
    total: dict[str, Counts] = {}
    for entry in arms:
        predictions = entry.predictions
        counts = confusion_matrix(predictions.true, predictions.predicted, len(predictions.classes))
        total[entry.arm] = total[entry.arm] + counts if entry.arm in total else counts
    return total


def _is_federated(arms: Sequence[ArmPredictions]) -> bool:
    found = {(entry.seed, entry.arm): entry.predictions.probabilities for entry in arms}
    pairs = [
        (values, found.get((number, "federated")))
        for (number, arm), values in found.items()
        if arm == "explainable"
    ]
    return bool(pairs) and all(other is not None and np.array_equal(values, other) for values, other in pairs)


def _names(kind: type[Row] | type[Summary] | type[Difference]) -> list[str]:
    return [field.name for field in fields(kind)]


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Comma-separated text: six decimals, and an empty field where a value is undefined."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_plain(value) for value in row])
    return stream.getvalue()


def _plain(value: object) -> object:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.6f}"
    return value
