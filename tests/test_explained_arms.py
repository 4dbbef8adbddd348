from __future__ import annotations

from typing import Any, get_args

import pytest

from fedlens.explained_arms import (
    ALONE_DEFAULTS,
    EXPLAINABLE_DEFAULTS,
    FEDERATION_ARMS,
    arm_explanation,
    is_explained,
    switched_on,
)
from fedlens.study import CompareSettings, ExplanationSettings

EVERYTHING = ExplanationSettings(
    method="hires-cam", outline_loss=0.7, field_loss=0.2, consistency_loss=0.1, weighting="explanations"
)


def test_only_explainable_arms_mind_explanations_whatever_the_study_says() -> None:
    for arm in ("federated", "central", "local-A"):
        assert switched_on(arm_explanation(EVERYTHING, arm)) == {}
        assert not is_explained(arm)
    assert arm_explanation(EVERYTHING, "explainable") == EVERYTHING


def test_a_study_that_switches_nothing_on_gets_what_is_recommended() -> None:
    plain = ExplanationSettings(method="hires-cam", every=3)
    found = arm_explanation(plain, "explainable")
    assert switched_on(found) == dict(EXPLAINABLE_DEFAULTS)
    assert (found.method, found.every) == ("hires-cam", 3)
    assert arm_explanation(plain, "federated") == plain


def test_one_switch_of_the_study_is_all_that_explainable_uses() -> None:
    found = arm_explanation(ExplanationSettings(consistency_loss=0.4), "explainable")
    assert switched_on(found) == {"consistency_loss": 0.4}


@pytest.mark.parametrize(
    ("arm", "alone"),
    [
        ("explainable-outline", {"outline_loss": 0.7}),
        ("explainable-field", {"field_loss": 0.2}),
        ("explainable-consistency", {"consistency_loss": 0.1}),
        ("explainable-weighting", {"weighting": "explanations"}),
    ],
)
def test_each_idea_can_be_switched_on_alone(arm: str, alone: dict[str, Any]) -> None:
    assert switched_on(arm_explanation(EVERYTHING, arm)) == alone
    assert switched_on(arm_explanation(ExplanationSettings(), arm)) == dict(ALONE_DEFAULTS[arm])
    assert is_explained(arm)


def test_the_study_file_knows_every_arm() -> None:
    (names, _) = get_args(CompareSettings.model_fields["arms"].annotation)
    assert set(get_args(names)) == {"local", "central", *FEDERATION_ARMS}
