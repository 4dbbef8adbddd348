from __future__ import annotations

import math
from typing import Any

from fedlens.reports.explanation_curves import explanation_curve, explanation_curves
from fedlens.reports.figures import DARK, LIGHT, svg

from .conftest import fake_explanation_curves


def event(number: int, figures: dict[str, Any] | None) -> dict[str, Any]:
    said = {} if figures is None else {"explanation": {"figures": figures}}
    return {"event": "round", "round": number, **said}


def test_curves_are_read_from_rounds_that_were_measured() -> None:
    events = [
        {"event": "start", "rounds": 10},
        event(1, None),
        event(2, {"energy": {"value": 0.2, "times_chance": 1.5}, "strays": {"value": 0.3}}),
        event(4, {"energy": {"value": 0.2, "times_chance": None}, "strays": {"value": 0.2}}),
        {"event": "round", "round": 5, "explanation": {}},
    ]
    curve = explanation_curve("federated", 0, events, passes=50)
    assert curve is not None
    assert curve.passes == (10, 20)
    assert curve.values["strays"] == (0.3, 0.2)
    assert curve.values["energy"][0] == 1.5 and math.isnan(curve.values["energy"][1])
    assert all(map(math.isnan, curve.values["equivariance-flip"]))
    assert b"<svg" in svg(explanation_curves([curve]))


def test_one_measurement_is_no_curve() -> None:
    events = [{"event": "start", "rounds": 10}, event(10, {"strays": {"value": 0.2}})]
    assert explanation_curve("federated", 0, events, passes=5) is None


def test_curves_are_drawn_in_both_looks() -> None:
    draw = explanation_curves(fake_explanation_curves())
    assert svg(draw, LIGHT) != svg(draw, DARK)
