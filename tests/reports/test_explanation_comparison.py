from __future__ import annotations

import csv
import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from fedlens.errors import HistoryError
from fedlens.reports.comparison import ArmPredictions
from fedlens.reports.explanation_comparison import (
    ExplanationComparison,
    compare_explanations,
    load_arm_explanations,
    verdict,
    write_explanation_comparison,
)
from fedlens.reports.explanation_figures import FIGURES
from fedlens.reports.explanations import EXPLANATIONS_NAME

from .conftest import SKILL, fake_explanations, fake_predictions

BY_NAME = {figure.name: figure for figure in FIGURES}


def test_figures_are_means_over_the_images_that_have_them(explanations: ExplanationComparison) -> None:
    columns = fake_explanations("federated").values.columns
    outlined = np.isfinite(columns["area"])
    energy = explanations.summary("federated", "pooled", "energy")
    assert energy is not None
    assert energy.images == explanations.outlined == outlined.sum() < explanations.images
    assert energy.mean == pytest.approx(columns["energy"][outlined].mean())
    assert energy.chance == pytest.approx(columns["area"][outlined].mean())
    assert energy.centre == pytest.approx(columns["energy-centre"][outlined].mean())
    assert energy.low < energy.mean < energy.high
    times = explanations.summary("federated", "pooled", "times-chance")
    assert times is not None
    assert times.mean == pytest.approx(energy.mean / energy.chance)
    assert times.chance == 1 and times.centre == pytest.approx(1.5)
    iou = explanations.summary("federated", "pooled", "iou")
    assert iou is not None
    best = max(np.nanmean(values) for name, values in columns.items() if name.startswith("iou@"))
    assert iou.mean == pytest.approx(best)
    strays = explanations.summary("federated", "pooled", "strays")
    assert strays is not None and strays.images == 480 and math.isnan(strays.chance)


def test_a_place_without_outlines_has_no_localisation(explanations: ExplanationComparison) -> None:
    assert explanations.summary("federated", "source:chest_xray", "energy") is None
    assert explanations.summary("federated", "source:chest_xray", "strays") is not None
    assert explanations.summary("federated", "source:brain_mri", "energy") is not None
    assert explanations.scopes("hospital") == ("hospital:A", "hospital:B", "hospital:C", "hospital:D")


def test_hospitals_alone_are_averaged(explanations: ExplanationComparison) -> None:
    each = [np.nanmean(fake_explanations(f"local-{name}").values.columns["energy"]) for name in "ABCD"]
    local = explanations.summary("local", "pooled", "energy")
    assert local is not None and local.mean == pytest.approx(np.mean(each))


def test_a_gain_is_a_paired_difference_from_the_federated_arm(explanations: ExplanationComparison) -> None:
    assert explanations.explained_arms == ("explainable", "explainable-field")
    gain = explanations.gain("explainable", "pooled", "energy")
    assert gain is not None
    assert gain.difference == pytest.approx(gain.value - gain.federated)
    assert 0 < gain.low < gain.difference < gain.high
    assert (gain.verdict, gain.p_value < 0.05) == ("better", True)
    same = explanations.gain("explainable-field", "pooled", "accuracy")
    assert same is not None
    assert (same.difference, same.p_value, same.verdict) == (0, 1, "no effect seen")
    summary = explanations.summary("explainable", "pooled", "energy")
    base = explanations.summary("federated", "pooled", "energy")
    assert summary is not None and base is not None
    paired, unpaired = gain.high - gain.low, math.hypot(summary.high - summary.low, base.high - base.low)
    assert paired < unpaired, "images that are hard for both arms do not blur the difference"


@pytest.mark.parametrize(
    ("figure", "difference", "p_value", "said"),
    [
        ("energy", 0.1, 0.01, "better"),
        ("energy", -0.1, 0.01, "worse"),
        ("strays", 0.1, 0.01, "worse"),
        ("strays", -0.1, 0.01, "better"),
        ("energy", 0.1, 0.05, "no effect seen"),
        ("energy", 0.0, 0.01, "no effect seen"),
        ("energy", 0.1, math.nan, "no effect seen"),
    ],
)
def test_verdicts_know_which_way_is_better(figure: str, difference: float, p_value: float, said: str) -> None:
    assert verdict(BY_NAME[figure], difference, p_value) == said


def test_where_nothing_differs_few_effects_are_seen() -> None:
    """Two arms of the same quality: about one figure in twenty may look like an effect."""
    seen = []
    for seed in range(12):
        arms = [
            fake_explanations("federated", seed),
            dataclasses.replace(fake_explanations("explainable-field", seed), arm="explainable-field"),
        ]
        found = compare_explanations(arms, resamples=200)
        assert found is not None
        seen += [gain.verdict != "no effect seen" for gain in found.gains if gain.scope == "pooled"]
    assert np.mean(seen) < 0.2


def test_seeds_give_mean_and_spread() -> None:
    arms = [fake_explanations(arm, seed) for seed in range(3) for arm in ("federated", "explainable")]
    found = compare_explanations(arms, resamples=100)
    assert found is not None and found.seeds == (0, 1, 2)
    each = [np.nanmean(fake_explanations("federated", seed).values.columns["energy"]) for seed in range(3)]
    summary = found.summary("federated", "pooled", "energy")
    assert summary is not None
    assert summary.mean == pytest.approx(np.mean(each))
    assert summary.spread == pytest.approx(np.std(each, ddof=1))
    gain = found.gain("explainable", "pooled", "energy")
    assert gain is not None and gain.seeds == 3


def test_what_another_seed_undoes_is_no_effect() -> None:
    """Better with one seed and as much worse with the other: patients alone would call either an effect."""
    arms = [fake_explanations("federated", seed) for seed in (0, 1)]
    for seed, entry in enumerate(arms[:2]):
        columns = dict(entry.values.columns)
        columns["energy"] = columns["energy"] + (0.3 if seed else -0.2)
        values = dataclasses.replace(entry.values, columns=columns)
        arms.append(dataclasses.replace(entry, arm="explainable", values=values))
    both, one = compare_explanations(arms, resamples=200), compare_explanations(arms[1::2], resamples=200)
    assert both is not None and one is not None
    undone, seen = (found.gain("explainable", "pooled", "energy") for found in (both, one))
    assert undone is not None and seen is not None
    assert undone.difference == pytest.approx(0.05) and undone.verdict == "no effect seen"
    assert seen.difference == pytest.approx(0.3) and seen.verdict == "better"


def test_one_patient_leaves_nothing_to_resample() -> None:
    arms = []
    for arm in ("federated", "explainable"):
        entry = fake_explanations(arm)
        one = np.array(["p"] * len(entry.values))
        arms.append(dataclasses.replace(entry, values=dataclasses.replace(entry.values, groups=one)))
    found = compare_explanations(arms, resamples=100)
    assert found is not None
    gain = found.gain("explainable", "pooled", "energy")
    assert gain is not None and math.isnan(gain.low)
    assert (gain.p_value, gain.verdict) == (1, "no effect seen")


def test_arms_of_other_images_are_refused_and_no_arms_are_no_comparison() -> None:
    whole = fake_explanations("federated")
    part = dataclasses.replace(whole, arm="explainable", values=whole.values.take(np.arange(20)))
    with pytest.raises(HistoryError, match="explainable of seed 0"):
        compare_explanations([whole, part])
    assert compare_explanations([]) is None


def test_explanations_are_found_beside_predictions_and_must_be_of_the_same_images(tmp_path: Path) -> None:
    arms = [ArmPredictions(0, arm, fake_predictions(arm)) for arm in SKILL]
    fake_explanations("federated").values.take(np.arange(480)).save(
        tmp_path / "seed-0" / "federated" / EXPLANATIONS_NAME
    )
    order = np.argsort(arms[0].predictions.image_ids, kind="stable")
    with pytest.raises(HistoryError, match="other images"):
        load_arm_explanations(tmp_path, arms)
    ordered = [dataclasses.replace(entry, predictions=entry.predictions.take(order)) for entry in arms]
    (found,) = load_arm_explanations(tmp_path, ordered)
    assert found.arm == "federated"
    right = found.values.columns["accuracy"]
    assert right.mean() == fake_predictions("federated").right.mean()


def test_tables_are_tidy(explanations: ExplanationComparison, tmp_path: Path) -> None:
    write_explanation_comparison(tmp_path, explanations)
    rows = list(csv.DictReader((tmp_path / "explanations.csv").open()))
    assert len(rows) == len(explanations.summaries)
    assert len({(row["arm"], row["scope"], row["figure"]) for row in rows}) == len(rows)
    gains = list(csv.DictReader((tmp_path / "explanation_gains.csv").open()))
    assert {row["verdict"] for row in gains} <= {"better", "worse", "no effect seen"}
