"""Settings of advice."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedlens.settings import Settings


class DecisionSettings(Settings):
    """How probabilities become sets and advice. All but the first and the last may change after fitting.

    Attributes:
        federated: Fit across hospitals after the last round, from sums that are sealed as updates are; if
            not, advice is fitted on first use, where all of the study's images are.
        coverage: Share of images whose true class the prediction set shall hold.
        score: ``lac`` gives the smallest sets, which may be empty; ``aps`` sets adapt to each image, and
            hold more than asked for.
        per_class: Promise the coverage for every true class by itself, not over all images.
        largest_set: Refer where the set holds more classes than this.
        within: Refer as unlike the training images what lies further from them than this share of held-out
            images.
        referral_rate: Refer at least this share of images, those whose likeliest class is least probable,
            as measured on validation images; 0 leaves it to the other reasons.
        straying: Refer where the map strays outside the body or onto letters, frames or hairs.
        sensitivity: Each class's operating point is the highest threshold on its probability that keeps
            this sensitivity on validation images.
        shrinkage: Weight of a multiple of the identity in the covariance of features.
    """

    federated: bool = True
    coverage: float = Field(default=0.9, gt=0.0, lt=1.0)
    score: Literal["lac", "aps"] = "lac"
    per_class: bool = False
    largest_set: int = Field(default=1, ge=1)
    within: float = Field(default=0.99, gt=0.0, lt=1.0)
    referral_rate: float = Field(default=0.0, ge=0.0, lt=1.0)
    straying: bool = True
    sensitivity: float = Field(default=0.95, gt=0.0, lt=1.0)
    shrinkage: float = Field(default=0.1, gt=0.0, le=1.0)
