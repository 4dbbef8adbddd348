from __future__ import annotations

import csv
import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from fedlens.errors import HistoryError
from fedlens.metrics import auroc, macro_auroc
from fedlens.reports.comparison import ArmPredictions, Comparison, compare, load_arms, write_comparison
from fedlens.reports.measures import CLASS_METRICS, SCOPE_METRICS
from fedlens.reports.predictions import PREDICTIONS_NAME

from .conftest import CLASSES, HOSPITALS, SOURCES, fake_arms, fake_predictions


def test_arms_are_measured_on_every_scope(comparison: Comparison) -> None:
    assert comparison.arms == ("local", "central", "federated", "explainable")
    assert (comparison.hospitals, comparison.sources) == (HOSPITALS, tuple(sorted(SOURCES)))
    scopes = {row.scope for row in comparison.rows if row.arm == "federated"}
    assert scopes == {
        "pooled",
        "own",
        *(f"hospital:{name}" for name in HOSPITALS),
        *(f"source:{name}" for name in SOURCES),
        *(f"class:{name}" for name in CLASSES),
    }
    for row in comparison.rows:
        assert row.metric in (CLASS_METRICS if row.scope.startswith("class:") else SCOPE_METRICS)


def test_values_are_those_of_the_predictions(comparison: Comparison) -> None:
    central = fake_predictions("central")
    assert comparison.summary("central", "pooled", "accuracy").mean == pytest.approx(central.right.mean())
    at_b = central.of_hospital("B")
    found = comparison.summary("central", "hospital:B", "accuracy")
    assert (found.images, found.mean) == (len(at_b), pytest.approx(at_b.right.mean()))
    area = macro_auroc(auroc(central.true, central.probabilities))
    assert comparison.summary("central", "pooled", "auroc_macro").mean == pytest.approx(float(area))
    for row in comparison.rows:
        assert math.isnan(row.low) or row.low - 1e-9 <= row.high


def test_training_alone_is_seen_both_ways(comparison: Comparison) -> None:
    alone = {name: fake_predictions(f"local-{name}") for name in HOSPITALS}
    pooled = np.mean([predictions.right.mean() for predictions in alone.values()])
    own = np.mean([predictions.of_hospital(name).right.mean() for name, predictions in alone.items()])
    assert comparison.summary("local", "pooled", "accuracy").mean == pytest.approx(pooled)
    assert comparison.summary("local", "own", "accuracy").mean == pytest.approx(own)
    together = fake_predictions("federated")
    fair = np.mean([together.of_hospital(name).right.mean() for name in HOSPITALS])
    assert comparison.summary("federated", "own", "accuracy").mean == pytest.approx(fair)


def test_gains_pair_federated_with_each_hospitals_own_network(comparison: Comparison) -> None:
    assert [gain.hospital for gain in comparison.gains] == [*HOSPITALS, ""]
    total = 0
    for gain in comparison.gains[:-1]:
        alone = fake_predictions(f"local-{gain.hospital}").of_hospital(gain.hospital).right
        together = fake_predictions("federated").of_hospital(gain.hospital).right
        assert gain.result.difference == pytest.approx(together.mean() - alone.mean())
        assert gain.result.low <= gain.result.difference <= gain.result.high
        total += gain.result.images
    assert comparison.gains[-1].result.images == total == comparison.images


def test_the_order_of_images_does_not_matter(comparison: Comparison) -> None:
    shuffled = [
        dataclasses.replace(
            entry, predictions=entry.predictions.take(np.random.default_rng(number).permutation(480))
        )
        for number, entry in enumerate(fake_arms())
    ]
    assert repr(compare(shuffled, resamples=200).rows) == repr(comparison.rows)


def test_seeds_give_mean_and_spread() -> None:
    arms = [entry for entry in fake_arms((0, 1, 2)) if entry.arm in ("federated", "local-A")]
    result = compare(arms, resamples=100)
    each = [fake_predictions("federated", seed).right.mean() for seed in range(3)]
    found = result.summary("federated", "pooled", "accuracy")
    assert (result.seeds, found.seeds) == ((0, 1, 2), 3)
    assert found.mean == pytest.approx(np.mean(each))
    assert found.spread == pytest.approx(np.std(each, ddof=1))
    assert result.gains[0].result.images == 3 * (fake_predictions().hospitals == "A").sum()
    assert result.confusions["federated"].sum() == 3 * 480


def test_a_single_run_needs_no_other_arm() -> None:
    result = compare([ArmPredictions(0, "federated", fake_predictions())], resamples=100)
    assert (result.arms, result.gains, result.against_central) == (("federated",), (), None)
    assert not result.explainable_is_federated
    assert math.isnan(result.summary("federated", "pooled", "accuracy").spread)
    with pytest.raises(HistoryError, match="arm central"):
        result.summary("central", "pooled", "accuracy")


def test_explainable_is_said_to_be_federated_only_where_it_is(comparison: Comparison) -> None:
    assert comparison.explainable_is_federated
    other = [entry for entry in fake_arms() if entry.arm != "explainable"]
    other.append(ArmPredictions(0, "explainable", fake_predictions("central")))
    assert not compare(other, resamples=100).explainable_is_federated


def test_arms_tested_on_other_images_are_refused() -> None:
    arms = fake_arms()
    fewer = ArmPredictions(0, "central", fake_predictions("central").of_hospital("A"))
    with pytest.raises(HistoryError, match="central"):
        compare([arms[0], fewer])
    with pytest.raises(HistoryError, match="no arms"):
        compare([])


def test_a_hospital_with_one_patient_has_values_without_interval() -> None:
    whole = fake_predictions()
    groups = np.where(whole.hospitals == "A", "patient-1", whole.groups)
    result = compare(
        [ArmPredictions(0, "federated", dataclasses.replace(whole, groups=groups))], resamples=100
    )
    found = result.summary("federated", "hospital:A", "accuracy")
    assert found.mean > 0.5 and math.isnan(found.low)
    assert math.isnan(result.summary("federated", "own", "accuracy").low)


def test_arms_are_found_in_a_comparisons_folder(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="No finished arm"):
        load_arms(tmp_path)
    for seed in (10, 2):
        for arm in ("federated", "local-A"):
            fake_predictions(arm, seed, 20).save(tmp_path / f"seed-{seed}" / arm / PREDICTIONS_NAME)
    (tmp_path / "seed-2" / "central").mkdir()
    found = [(entry.seed, entry.arm) for entry in load_arms(tmp_path)]
    assert found == [(2, "federated"), (2, "local-A"), (10, "federated"), (10, "local-A")]


def test_tables_are_tidy(comparison: Comparison, tmp_path: Path) -> None:
    write_comparison(tmp_path, comparison)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "comparison.csv",
        "gains.csv",
        "summary.csv",
    ]
    rows = list(csv.DictReader((tmp_path / "comparison.csv").open()))
    assert list(rows[0]) == ["seed", "arm", "scope", "images", "metric", "value", "low", "high"]
    assert len(rows) == len(comparison.rows)
    keys = {(row["seed"], row["arm"], row["scope"], row["metric"]) for row in rows}
    assert len(keys) == len(rows)
    assert {len(row["value"].partition(".")[2]) for row in rows} == {6}
    summary = list(csv.DictReader((tmp_path / "summary.csv").open()))
    assert {row["spread"] for row in summary} == {""}
    gains = list(csv.DictReader((tmp_path / "gains.csv").open()))
    assert [row["hospital"] for row in gains] == [*HOSPITALS, "all"]
