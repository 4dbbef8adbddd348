"""What the arms of a comparison train with, as far as explanations go.

======================= ===============================================================
arm                     trains with
======================= ===============================================================
federated               no loss on maps; updates count by images
explainable             what ``study.explanation`` switches on, or what is recommended
explainable-outline     the loss on heat outside experts' outlines alone
explainable-field       the loss on heat outside the body or skin alone
explainable-consistency the loss on maps that do not turn with their image alone
explainable-weighting   updates that count by where the hospital's maps lie, and no loss
======================= ===============================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedlens.arm_path import FEDERATED
from fedlens.study import ExplanationSettings

EXPLAINABLE = "explainable"

EXPLAINABLE_DEFAULTS: Mapping[str, Any] = {"outline_loss": 0.3, "field_loss": 0.3}
"""Settings of the arm ``explainable`` where the study switches nothing on."""

ALONE_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "explainable-outline": {"outline_loss": 0.3},
    "explainable-field": {"field_loss": 0.3},
    "explainable-consistency": {"consistency_loss": 0.3},
    "explainable-weighting": {"weighting": "explanations"},
}
"""The one setting of each arm that tries a single idea; a weight that the study sets goes before."""

_OFF: Mapping[str, Any] = {
    "outline_loss": 0.0,
    "field_loss": 0.0,
    "consistency_loss": 0.0,
    "weighting": "images",
}


def switched_on(settings: ExplanationSettings) -> dict[str, Any]:
    """The settings by which training minds explanations, where they are on."""
    return {name: getattr(settings, name) for name, off in _OFF.items() if getattr(settings, name) != off}


def unexplained(settings: ExplanationSettings) -> ExplanationSettings:
    """The same without anything by which training minds explanations."""
    return settings.model_copy(update={**_OFF, "outlines_at": ()})


def arm_explanation(settings: ExplanationSettings, arm: str) -> ExplanationSettings:
    """What one arm of a comparison trains with.

    Args:
        settings: The study's.
        arm: ``federated``, or one whose name begins with ``explainable``; any other trains without.
    """
    on = switched_on(settings)
    if arm == EXPLAINABLE:
        wanted = on or EXPLAINABLE_DEFAULTS
    elif arm in ALONE_DEFAULTS:
        wanted = {name: on.get(name, value) for name, value in ALONE_DEFAULTS[arm].items()}
    else:
        wanted = {}
    kept = {"outlines_at": settings.outlines_at} if "outline_loss" in wanted else {}
    return unexplained(settings).model_copy(update={**wanted, **kept})


def is_explained(arm: str) -> bool:
    """Whether an arm of a comparison trains with explanations."""
    return arm == EXPLAINABLE or arm in ALONE_DEFAULTS


EXPLAINED_ARMS = (EXPLAINABLE, *ALONE_DEFAULTS)
"""Arms that are held against ``federated``, in the order of tables."""

FEDERATION_ARMS = (FEDERATED, *EXPLAINED_ARMS)
"""Arms that all hospitals train together."""
