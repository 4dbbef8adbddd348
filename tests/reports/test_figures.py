from __future__ import annotations

import dataclasses
import math
import xml.etree.ElementTree as ElementTree

import cv2
import matplotlib
import numpy as np
import pytest

from fedlens.reports.comparison import ArmPredictions, Comparison, compare
from fedlens.reports.figures import (
    DARK,
    LIGHT,
    Draw,
    arm_bars,
    class_balance,
    confusion_heat,
    hospital_gains,
    png,
    svg,
    training_curve,
    training_curves,
)
from fedlens.reports.paper import percent
from fedlens.reports.shares import Share

from .conftest import fake_curves, fake_predictions, fake_shares


def texts(draw: Draw) -> set[str]:
    with matplotlib.rc_context(LIGHT.settings()):
        figure = draw(LIGHT)
    return {text.get_text() for text in figure.findobj(matplotlib.text.Text)}


def test_bars_show_ours_solid_and_the_papers_hollow(comparison: Comparison) -> None:
    draw = arm_bars(comparison)
    with matplotlib.rc_context(LIGHT.settings()):
        axes = draw(LIGHT).axes[0]
    bars = {
        container.get_label(): container for container in axes.containers if hasattr(container, "patches")
    }
    assert len(bars) == 7
    for label, container in bars.items():
        for patch in container.patches:
            assert bool(patch.get_hatch()) == (patch.get_facecolor()[3] == 0) == label.endswith(", paper")
    heights = [patch.get_height() for patch in bars["Federated, paper"].patches]
    assert heights == pytest.approx([0.946, 0.941, 0.938, 0.939])
    assert axes.get_ylim()[0] == 0
    assert percent(comparison.summary("local", "pooled", "f1_macro").mean) in texts(draw)


def test_charts_are_whole_images_in_both_looks(comparison: Comparison) -> None:
    for draw in (
        arm_bars(comparison),
        hospital_gains(comparison),
        training_curves(fake_curves()),
        confusion_heat(comparison.confusions["federated"], comparison.classes),
        class_balance(fake_shares()),
    ):
        light, dark = svg(draw, LIGHT), svg(draw, DARK)
        assert ElementTree.fromstring(light).tag.endswith("svg")
        assert light != dark
        picture = cv2.imdecode(np.frombuffer(png(draw, dpi=40), np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None and picture.std() > 5


def test_the_same_chart_gives_the_same_bytes_and_leaves_settings_alone(comparison: Comparison) -> None:
    before = dict(matplotlib.rcParams)
    assert svg(hospital_gains(comparison)) == svg(hospital_gains(comparison))
    assert dict(matplotlib.rcParams) == before


def test_names_are_shown_as_they_are_never_as_formulas() -> None:
    name = r"$\frac{a}{"
    confusion = np.array([[3, 1], [0, 2]])
    assert name in texts(confusion_heat(confusion, [name, "$x$"]))
    assert b"<svg" in svg(confusion_heat(confusion, [name, "$x$"]))
    long = Share("A", "s", "an exceedingly long class name that fills the page", "train", 3)
    assert any(text.endswith("…") for text in texts(class_balance([long])))


def test_arms_that_try_one_idea_have_no_bars_and_no_curves() -> None:
    arms = [
        ArmPredictions(0, arm, fake_predictions("federated"))
        for arm in ("federated", "explainable", "explainable-field")
    ]
    comparison = compare(arms, resamples=100)
    assert comparison.arms == ("federated", "explainable", "explainable-field")
    assert "Explainable federated, here" in texts(arm_bars(comparison))
    assert not any("Field loss" in text for text in texts(arm_bars(comparison)))
    curves = [dataclasses.replace(fake_curves()[-1], arm=entry.arm) for entry in arms]
    shown = texts(training_curves(curves))
    assert "Explainable federated" in shown and "Field loss alone" not in shown


def test_counts_stand_in_the_cells() -> None:
    shown = texts(confusion_heat(np.array([[1234, 7], [0, 2]]), ["a", "b"]))
    assert {"1,234", "7", "2", "·", "a", "b", "Predicted", "True"} <= shown


def test_a_hospital_without_interval_still_gets_its_bar() -> None:
    one = np.array(["p"] * 480)
    arms = [
        ArmPredictions(0, arm, dataclasses.replace(fake_predictions(arm), groups=one))
        for arm in ("federated", "local-A")
    ]
    comparison = compare(arms, resamples=100)
    assert math.isnan(comparison.gains[0].result.low)
    assert "Hospital A" in texts(hospital_gains(comparison))
    assert b"<svg" in svg(arm_bars(comparison))


def test_curves_are_read_from_a_history() -> None:
    events = [
        {"event": "start", "rounds": 10},
        {"event": "round", "round": 1, "loss": 1.5},
        {"event": "round", "round": 2, "loss": 1.0, "evaluation": {"loss": 1.2, "accuracy": 0.6}},
        {"event": "failed", "round": 3, "reason": "nobody"},
    ]
    curve = training_curve("federated", 0, events, passes=50)
    assert curve.passes == (5, 10)
    assert curve.training_loss == (1.5, 1.0)
    assert math.isnan(curve.validation_loss[0]) and curve.validation_accuracy[1] == 0.6
    assert b"<svg" in svg(training_curves([curve]))
