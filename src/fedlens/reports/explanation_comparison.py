"""How good every arm's explanations of the same test images are, and what training with them changes.

Figures are means over images, of each arm and seed; over seeds they are averaged, and so are their
resampled values, draw by draw. Whole patients are drawn, the same ones for every arm, so the difference
of two arms has an interval and a paired test of its own. There seeds are drawn too: what another seed
undoes is no effect of a loss.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

import numpy as np

from fedlens.arm_path import FEDERATED
from fedlens.errors import HistoryError
from fedlens.explained_arms import is_explained
from fedlens.files import write_text
from fedlens.metrics import interval_of, resample_sums, two_sided
from fedlens.metrics.explanation import AREA
from fedlens.reports.comparison import ARM_ORDER, ArmPredictions, csv_text
from fedlens.reports.explanation_figures import (
    ACCURACY,
    FIGURES,
    Figure,
    Floats,
    baseline_values,
    figure_values,
)
from fedlens.reports.explanations import EXPLANATIONS_NAME, ExplanationValues, load_explanations
from fedlens.reports.measures import LOCAL

SIGNIFICANT = 0.05
"""Below this p-value a difference counts as an effect."""

_NAN = float("nan")


@dataclass(frozen=True, eq=False)
class ArmExplanations:
    """What was measured on one arm's maps, with the column ``accuracy`` beside; sorted by image id."""

    seed: int
    arm: str
    values: ExplanationValues


@dataclass(frozen=True)
class ExplanationSummary:
    """One figure of one arm over all seeds.

    Attributes:
        arm: ``local`` is the mean over the hospitals' networks.
        scope: ``pooled``, ``hospital:A`` or ``source:x``.
        figure: Name of one of :data:`~fedlens.reports.explanation_figures.FIGURES`.
        images: Test images that it is defined on.
        seeds: Training seeds.
        mean: Mean over the seeds.
        spread: Standard deviation over the seeds; NaN for one.
        low: Lower end of the 95 % interval of the mean, from resampling test groups.
        high: Upper end.
        chance: The same figure of a random map; NaN where unknown.
        centre: The same figure of a map that is hot in the middle; NaN where none is taken.
        better: ``higher`` or ``lower``.
    """

    arm: str
    scope: str
    figure: str
    images: int
    seeds: int
    mean: float
    spread: float
    low: float
    high: float
    chance: float
    centre: float
    better: str


@dataclass(frozen=True)
class ExplanationGain:
    """What an arm that trains with explanations changes against the federated one, on the same images.

    Attributes:
        images: Test images that the figure is defined on.
        value: Mean over the seeds that both arms have.
        federated: The same of the federated arm.
        difference: ``value - federated``.
        low: Lower end of the 95 % interval of the difference.
        high: Upper end.
        p_value: Of a two-sided paired bootstrap test that draws groups and seeds; 1 where there is nothing to
            resample.
        verdict: ``better`` or ``worse`` where the p-value is below 0.05, else ``no effect seen``.
    """

    arm: str
    scope: str
    figure: str
    images: int
    seeds: int
    value: float
    federated: float
    difference: float
    low: float
    high: float
    p_value: float
    verdict: str


@dataclass(frozen=True, eq=False)
class ExplanationComparison:
    """All results on explanations of one comparison, or of one run.

    Attributes:
        method: How the maps were made.
        arms: In the order of tables.
        seeds: Training seeds.
        images: Test images.
        outlined: Those with an expert's outline.
        summaries: One for each arm, scope and figure that is defined.
        gains: One for each arm that trains with explanations, scope and figure; none without ``federated``.
    """

    method: str
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    images: int
    outlined: int
    summaries: tuple[ExplanationSummary, ...]
    gains: tuple[ExplanationGain, ...]

    def summary(self, arm: str, scope: str, figure: str) -> ExplanationSummary | None:
        """One figure, or None where it is not defined."""
        places = ((entry.arm, entry.scope, entry.figure) for entry in self.summaries)
        return next(
            (
                entry
                for entry, place in zip(self.summaries, places, strict=True)
                if place == (arm, scope, figure)
            ),
            None,
        )

    def gain(self, arm: str, scope: str, figure: str) -> ExplanationGain | None:
        """One difference from the federated arm, or None where it is not defined."""
        places = ((entry.arm, entry.scope, entry.figure) for entry in self.gains)
        return next(
            (entry for entry, place in zip(self.gains, places, strict=True) if place == (arm, scope, figure)),
            None,
        )

    def scopes(self, kind: str) -> tuple[str, ...]:
        """Scopes of one kind, ``hospital`` or ``source``."""
        found = (entry.scope for entry in self.summaries if entry.scope.startswith(f"{kind}:"))
        return tuple(dict.fromkeys(found))

    @property
    def explained_arms(self) -> tuple[str, ...]:
        """Arms with gains."""
        return tuple(dict.fromkeys(gain.arm for gain in self.gains))


@dataclass(frozen=True, eq=False)
class _Quality:
    """Figures of one arm and seed on one scope: images, values and draws by figure."""

    images: Mapping[str, int]
    values: Mapping[str, float]
    drawn: Mapping[str, Floats]


_Qualities = dict[tuple[int, str, str], _Quality]
"""By seed, arm and scope."""


def load_arm_explanations(folder: Path, arms: Sequence[ArmPredictions]) -> tuple[ArmExplanations, ...]:
    """Explanations of those arms that have any, with whether each image was decided rightly.

    Raises:
        HistoryError: A torn file, or one of other images than the arm's predictions.
    """
    found = []
    for entry in arms:
        path = folder / f"seed-{entry.seed}" / entry.arm / EXPLANATIONS_NAME
        if not path.is_file():
            continue
        values = load_explanations(path)
        if not np.array_equal(values.image_ids, entry.predictions.image_ids):
            raise HistoryError(
                f"{path} is of other images than the arm's predictions.",
                fix="Remove the file and run: fedlens report FOLDER",
            )
        found.append(arm_explanations(entry, values))
    return tuple(found)


def arm_explanations(predicted: ArmPredictions, values: ExplanationValues) -> ArmExplanations:
    """An arm's figures by image, with what it decided, sorted by image id."""
    columns = {**values.columns, ACCURACY: predicted.predictions.right.astype(np.float64)}
    whole = replace(values, columns=columns)
    rows = np.argsort(values.image_ids, kind="stable")
    return ArmExplanations(predicted.seed, predicted.arm, whole.take(rows))


def compare_explanations(
    arms: Sequence[ArmExplanations], *, resamples: int = 1000, seed: int = 0
) -> ExplanationComparison | None:
    """Compare every arm's explanations of the same images; None where no arm has any.

    Args:
        arms: As from :func:`load_arm_explanations`.
        resamples: Bootstrap resamples of the 95 % intervals.
        seed: Of the bootstrap, not of training.

    Raises:
        HistoryError: Arms explained different images.
    """
    if not arms:
        return None
    first = arms[0].values
    for entry in arms:
        if not np.array_equal(entry.values.image_ids, first.image_ids):
            raise HistoryError(
                f"Arm {entry.arm} of seed {entry.seed} explained other images than the rest.",
                fix="Remove its explanations.parquet and run: fedlens report FOLDER",
            )
    scopes = _scopes(first)
    qualities: _Qualities = {
        (entry.seed, entry.arm, scope): _quality(entry.values.take(rows), resamples, seed + number)
        for entry in arms
        for number, (scope, rows) in enumerate(scopes.items())
    }
    _add_local(qualities, scopes)
    present = {arm for _, arm, _ in qualities}
    area = first.columns.get(AREA, np.full(len(first), np.nan))
    names = tuple(arm for arm in ARM_ORDER if arm in present)
    baselines = {scope: _baselines(first.take(rows)) for scope, rows in scopes.items()}
    return ExplanationComparison(
        method=first.method,
        arms=names,
        seeds=tuple(sorted({entry.seed for entry in arms})),
        images=len(first),
        outlined=int(np.isfinite(area).sum()),
        summaries=tuple(_summaries(qualities, names, scopes, baselines)),
        gains=tuple(_gains(qualities, names, scopes)),
    )


def write_explanation_comparison(folder: Path, comparison: ExplanationComparison) -> None:
    """Write ``explanations.csv`` and ``explanation_gains.csv``, each whole."""
    for name, kind, rows in (
        ("explanations.csv", ExplanationSummary, comparison.summaries),
        ("explanation_gains.csv", ExplanationGain, comparison.gains),
    ):
        columns = [field.name for field in fields(kind)]
        write_text(folder / name, csv_text(columns, map(astuple, rows)))


def verdict(figure: Figure, difference: float, p_value: float) -> str:
    """A difference in words: ``better``, ``worse`` or ``no effect seen``."""
    if not p_value < SIGNIFICANT or difference == 0:
        return "no effect seen"
    return "better" if (difference > 0) == (figure.better == "higher") else "worse"


def _scopes(values: ExplanationValues) -> dict[str, np.ndarray]:
    """Rows of each scope that has images."""
    scopes = {"pooled": np.arange(len(values))}
    for kind, column in (("hospital", values.hospitals), ("source", values.sources)):
        scopes |= {f"{kind}:{name}": np.flatnonzero(column == name) for name in np.unique(column)}
    return scopes


def _quality(values: ExplanationValues, resamples: int, seed: int) -> _Quality:
    """Figures of some images and their draws, which are alike for arms of the same images and seed."""
    names = list(values.columns)
    table = np.stack([values.columns[name] for name in names], axis=1)
    defined = np.isfinite(table)
    parts = np.concatenate([np.where(defined, table, 0.0), defined], axis=1)
    drawn = figure_values(_means(names, resample_sums(parts, values.groups, resamples=resamples, seed=seed)))
    whole = figure_values(_means(names, parts.sum(0, keepdims=True)))
    outlined = int(np.isfinite(values.columns[AREA]).sum()) if AREA in values.columns else 0
    images = {figure.name: outlined if figure.needs_outline else len(values) for figure in FIGURES}
    return _Quality(images, {name: float(value[0]) for name, value in whole.items()}, drawn)


def _means(names: Sequence[str], sums: Floats) -> dict[str, Floats]:
    """Mean of each column in each draw, from sums of values and, after them, of defined ones."""
    totals, counts = np.split(sums, 2, axis=1)
    means = np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)
    return {name: means[:, index] for index, name in enumerate(names)}


def _baselines(values: ExplanationValues) -> tuple[dict[str, float], dict[str, float]]:
    means = {}
    for name, column in values.columns.items():
        defined = column[np.isfinite(column)]
        means[name] = np.array([defined.mean() if len(defined) else np.nan])
    chance, centre = baseline_values(means)
    return (
        {name: float(value[0]) for name, value in chance.items()},
        {name: float(value[0]) for name, value in centre.items()},
    )


def _add_local(qualities: _Qualities, scopes: Iterable[str]) -> None:
    """The arm ``local``: the mean over the hospitals' own networks."""
    for number in {seed for seed, _, _ in qualities}:
        for scope in scopes:
            alone = [
                quality
                for (seed, arm, where), quality in qualities.items()
                if seed == number and where == scope and arm.startswith(LOCAL)
            ]
            if alone:
                qualities[number, "local", scope] = _mean(alone)


def _mean(parts: Sequence[_Quality]) -> _Quality:
    names = parts[0].values
    return _Quality(
        parts[0].images,
        {name: statistics.fmean(part.values[name] for part in parts) for name in names},
        {name: np.asarray(np.mean([part.drawn[name] for part in parts], axis=0)) for name in names},
    )


def _summaries(
    qualities: _Qualities,
    arms: Sequence[str],
    scopes: Iterable[str],
    baselines: Mapping[str, tuple[Mapping[str, float], Mapping[str, float]]],
) -> Iterable[ExplanationSummary]:
    for arm in arms:
        for scope in scopes:
            parts = [entry for (_, name, where), entry in qualities.items() if (name, where) == (arm, scope)]
            mean = _mean(parts)
            chance, centre = baselines[scope]
            for figure in FIGURES:
                value = mean.values.get(figure.name, _NAN)
                if np.isnan(value):
                    continue
                each = [part.values[figure.name] for part in parts]
                yield ExplanationSummary(
                    arm,
                    scope,
                    figure.name,
                    mean.images[figure.name],
                    len(parts),
                    value,
                    statistics.stdev(each) if len(each) > 1 else _NAN,
                    *interval_of(mean.drawn[figure.name]),
                    chance.get(figure.name, _NAN),
                    centre.get(figure.name, _NAN),
                    figure.better,
                )


def _gains(qualities: _Qualities, arms: Sequence[str], scopes: Iterable[str]) -> Iterable[ExplanationGain]:
    for arm in filter(is_explained, arms):
        for scope in scopes:
            seeds = [
                seed
                for seed, name, where in qualities
                if (name, where) == (arm, scope) and (seed, FEDERATED, scope) in qualities
            ]
            if not seeds:
                continue
            each = [qualities[seed, arm, scope] for seed in seeds]
            bases = [qualities[seed, FEDERATED, scope] for seed in seeds]
            mine, theirs = _mean(each), _mean(bases)
            for figure in FIGURES:
                value = mine.values.get(figure.name, _NAN)
                federated = theirs.values.get(figure.name, _NAN)
                if np.isnan(value - federated):
                    continue
                drawn = _drawn_seeds(
                    [
                        one.drawn[figure.name] - base.drawn[figure.name]
                        for one, base in zip(each, bases, strict=True)
                    ]
                )
                p_value = two_sided(drawn)
                yield ExplanationGain(
                    arm,
                    scope,
                    figure.name,
                    mine.images[figure.name],
                    len(seeds),
                    value,
                    federated,
                    value - federated,
                    *interval_of(drawn),
                    p_value,
                    verdict(figure, value - federated, p_value),
                )


def _drawn_seeds(drawn: Sequence[Floats]) -> Floats:
    """Mean over as many seeds as there are, drawn with replacement in each resample; undefined ones left out.

    Args:
        drawn: (resamples,) differences of each seed.
    """
    table = np.stack(drawn)
    seeds, resamples = table.shape
    picked = np.random.default_rng(seeds).integers(seeds, size=(seeds, resamples))
    means = np.take_along_axis(table, picked, axis=0).mean(0)
    return np.asarray(means[np.isfinite(means)])
