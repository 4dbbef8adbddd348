"""All measures together, and the way into totals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedlens.explain.quality import Explained, quality_values, timed_explanation
from fedlens.explain.quality.measuring import COMPARED, EXAMINED, QUICK
from fedlens.metrics.explanation import COLUMNS, MEASURES
from fedlens.metrics.explanation_totals import QualityTotals, figures


def test_every_measure_has_its_function_and_stays_in_its_range(explained: Explained) -> None:
    described = {measure.name for measure in MEASURES if measure.family not in ("straying", "cost")}
    assert described == EXAMINED.keys() | COMPARED.keys()
    values = quality_values(explained, described)
    assert values.keys() <= set(COLUMNS)
    for measure in MEASURES:
        for column in measure.columns() if measure.name in described else ():
            known = values[column][~np.isnan(values[column])]
            assert len(known) and known.min() >= measure.low - 1e-9 and known.max() <= measure.high + 1e-9


def test_pooled_figures_are_means_over_the_images(explained: Explained) -> None:
    values = quality_values(explained, QUICK)
    labels = explained.targets.numpy()
    found = figures(QualityTotals.of(values, labels, 2), ("dark", "bright"))
    outlined = labels == 1
    assert found["pointing"]["value"] == pytest.approx(values["pointing"][outlined].mean(), abs=1e-6)
    assert found["pointing"]["images"] == outlined.sum() and found["pointing"]["better"] == "higher"
    assert found["pointing"]["chance"] == pytest.approx((12 / 32) ** 2, abs=1e-6)
    # The middle of the image lies outside the square in its upper left.
    assert found["pointing"]["centre"] == 0
    energy = found["energy"]
    assert energy["times_chance"] == pytest.approx(energy["value"] / energy["chance"])
    assert found["equivariance-flip"]["by_class"].keys() == {"dark", "bright"}
    assert found["pointing"]["by_class"].keys() == {"bright"}
    curve = [values[f"iou@{threshold / 20:.2f}"][outlined].mean() for threshold in range(1, 20)]
    assert found["iou"]["value"] == pytest.approx(max(curve), abs=1e-6)
    assert found["iou"]["threshold"] == pytest.approx((int(np.argmax(curve)) + 1) / 20)
    assert "deletion" not in found and "strays" not in found


def test_without_outlines_there_is_no_localisation(explained: Explained) -> None:
    bare = Explained(
        explained.network, explained.explain, explained.inputs, explained.targets, explained.maps
    )
    assert quality_values(bare, ("pointing", "iou", "empty")).keys() == {"empty"}


def test_explaining_is_timed(explained: Explained) -> None:
    again, cost = timed_explanation(
        explained.network, explained.explain, explained.inputs, explained.targets, explained.masks
    )
    assert torch.equal(again.maps, explained.maps)
    assert cost.shape == (6,) and cost.min() == cost.max() > 0
