"""What the coordinator knows of a study: settings, names and digests, no image and no label."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from fedlens.decision.settings import DecisionSettings
from fedlens.study import ExplanationSettings, FederationSettings, Study, TrainingSettings


@dataclass(frozen=True)
class CoordinatorSettings:
    """The coordinator's part of a study.

    Attributes:
        study: Digest of the study's settings.
        seed: Root of all randomness in training.
        fingerprint: Architecture fingerprint of the network.
        classes: Class names, for figures only.
        training: How a network learns.
        federation: How hospitals learn together.
        explanation: How maps are made and measured, and how often.
        decision: How advice is fitted, if it is.
        features: Of the network's last maps; 0 where advice is not to be fitted, whatever ``decision`` says.
        norm_names: Arrays of normalisation layers, weights and buffers; at home under FedBN.
        buffer_names: Arrays that no gradient reaches (running means and variances, counters).
    """

    study: str
    seed: int
    fingerprint: str
    classes: tuple[str, ...]
    training: TrainingSettings
    federation: FederationSettings
    explanation: ExplanationSettings
    decision: DecisionSettings = field(default_factory=DecisionSettings)
    features: int = 0
    norm_names: frozenset[str] = frozenset()
    buffer_names: frozenset[str] = frozenset()

    @classmethod
    def from_study(
        cls,
        study: Study,
        *,
        fingerprint: str,
        classes: Collection[str],
        norm_names: Collection[str],
        buffer_names: Collection[str],
        features: int = 0,
    ) -> CoordinatorSettings:
        """The coordinator's part of ``study`` for a network with these names."""
        return cls(
            study=study.digest(),
            seed=study.seed,
            fingerprint=fingerprint,
            classes=tuple(classes),
            training=study.training,
            federation=study.federation,
            explanation=study.explanation,
            decision=study.decision,
            features=features,
            norm_names=frozenset(norm_names),
            buffer_names=frozenset(buffer_names),
        )
