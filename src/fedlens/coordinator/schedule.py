"""How much each round trains, how fast, who takes part, what else is due, and when a study ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from fedlens.coordinator.checkpoints import RunState
from fedlens.coordinator.settings import CoordinatorSettings
from fedlens.coordinator.strategies import Strategy
from fedlens.errors import NotEnoughHospitalsError
from fedlens.protocol.messages import RoundPlan
from fedlens.study import FederationSettings, TrainingSettings

StopReason = Literal["rounds", "patience"]


def learning_rate(settings: TrainingSettings, progress: float, *, peak: float | None = None) -> float:
    """Learning rate at a point of the study.

    Rises linearly from 0 over the warm-up, then stays, or falls to 0 along half a cosine
    (Loshchilov and Hutter 2017, without restarts).

    Args:
        settings: ``learning_rate``, ``schedule`` and ``warmup`` are read.
        progress: 0 at the study's first step, 1 after its last.
        peak: Takes the place of ``settings.learning_rate``.
    """
    top = settings.learning_rate if peak is None else peak
    if progress < settings.warmup:
        return top * progress / settings.warmup
    if settings.schedule == "constant" or settings.warmup == 1:
        return top
    done = (progress - settings.warmup) / (1 - settings.warmup)
    return top * 0.5 * (1 + math.cos(math.pi * done))


def plan_round(settings: CoordinatorSettings, strategy: Strategy, round_number: int) -> RoundPlan:
    """The plan of one round, from 1.

    Within a round the rate runs straight from start to end. A warm-up shorter than the first round
    therefore takes that whole round, and ends at the peak.
    """
    training, federation = settings.training, settings.federation
    peak = federation.learning_rate or training.learning_rate
    ends = [number / federation.rounds for number in (round_number - 1, round_number)]
    first, last = (learning_rate(training, end, peak=peak) for end in ends)
    if ends[0] < training.warmup < ends[1]:
        last = peak
    return RoundPlan(
        study=settings.study,
        round=round_number,
        rounds=federation.rounds,
        fingerprint=settings.fingerprint,
        passes=training.passes / federation.rounds,
        seed=settings.seed,
        learning_rate_start=first,
        learning_rate_end=last,
        proximal_mu=strategy.proximal_mu,
        personal=strategy.personal,
    )


def evaluation_due(federation: FederationSettings, round_number: int) -> bool:
    """Whether the model after a round is measured; the last one always is."""
    return round_number % federation.evaluate_every == 0 or round_number == federation.rounds


def explanation_due(settings: CoordinatorSettings, round_number: int, *, last: bool = False) -> bool:
    """Whether maps are measured after a round; after the last one always, if they are measured at all.

    Args:
        settings: ``explanation`` and ``federation`` are read.
        round_number: From 1.
        last: The study ends with it, as it does early where patience runs out.
    """
    every = settings.explanation.every
    last = last or round_number == settings.federation.rounds
    return settings.explanation.measures != "none" and (last or (every > 0 and round_number % every == 0))


def no_common_network(settings: CoordinatorSettings) -> str:
    """Why no one network is every hospital's, in words; empty where one is."""
    if settings.federation.strategy != "fedbn":
        return ""
    return "Under fedbn each hospital keeps normalisation layers of its own, so there is no common network."


def advice_due(settings: CoordinatorSettings) -> bool:
    """Whether hospitals are asked, after the last round, for what advice is fitted from."""
    return settings.decision.federated and settings.features > 0 and not no_common_network(settings)


def steps_of(settings: CoordinatorSettings, round_number: int, *, last: bool = False) -> tuple[str, ...]:
    """What is summed in a round, in order, as a ledger names it.

    Args:
        settings: Say what is wanted.
        round_number: From 1.
        last: The study ends with it, as it does early where patience runs out.
    """
    last = last or round_number == settings.federation.rounds
    advice = last and advice_due(settings)
    due = {
        "train": True,
        "evaluate": evaluation_due(settings.federation, round_number),
        "explain": explanation_due(settings, round_number, last=last),
        "basis": advice,
        "scores": advice,
    }
    return tuple(step for step, wanted in due.items() if wanted)


def reason_to_stop(settings: CoordinatorSettings, state: RunState) -> StopReason | None:
    """Why no further round follows; None where one does."""
    if state.round >= settings.federation.rounds:
        return "rounds"
    if 0 < settings.training.patience <= state.waited:
        return "patience"
    return None


def draw_participants(
    hospitals: Sequence[str], settings: CoordinatorSettings, round_number: int
) -> tuple[str, ...]:
    """The hospitals of one round, in roster order; the same whenever the round is repeated.

    Raises:
        NotEnoughHospitalsError: The roster is shorter than the study's minimum.
    """
    federation = settings.federation
    if len(hospitals) < federation.minimum_hospitals:
        raise NotEnoughHospitalsError(
            f"The study has {len(hospitals)} hospitals: {', '.join(hospitals)}.",
            why=f"federation.minimum_hospitals = {federation.minimum_hospitals}.",
            fix="Add hospitals, or lower federation.minimum_hospitals.",
        )
    count = max(federation.minimum_hospitals, round(federation.participation * len(hospitals)))
    rng = np.random.default_rng((settings.seed, round_number))
    chosen = rng.choice(len(hospitals), size=count, replace=False)
    return tuple(hospitals[index] for index in sorted(chosen))
