"""The round loop: the eight steps of EFDL section 3.1, as far as the coordinator takes part in them.

1. Initialise the global model, or go on from the last checkpoint.
2. Distribute it to the round's hospitals.
3. They train, each on its own images.
4. They transmit updates: local minus global weights.
5. Federated averaging, by image count.
6. Update the global model, and redistribute it.
7. Hospitals explain and measure it on images it was not trained on; only counts come back.
8. Decide which round is the best so far and whether to go on. (The paper's eighth step, the
   diagnosis itself, is made at the hospital that holds the image.)
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fedlens.coordinator.aggregation import RunningMean, check_update
from fedlens.coordinator.checkpoints import (
    RunState,
    check_same_study,
    checkpoint_path,
    latest,
    read_checkpoint,
    write_checkpoint,
)
from fedlens.coordinator.collection import Collected, collect
from fedlens.coordinator.evaluation import RunningCounts, check_evaluation, figures
from fedlens.coordinator.history import HISTORY_NAME, Event, History
from fedlens.coordinator.schedule import draw_participants, plan_round
from fedlens.coordinator.settings import CoordinatorSettings
from fedlens.coordinator.strategies import Strategy, make_strategy
from fedlens.engines.engine import Engine
from fedlens.errors import HistoryError, RoundError
from fedlens.progress import Progress, silent
from fedlens.protocol.messages import (
    EvaluateRequest,
    Evaluation,
    Parameters,
    RoundPlan,
    TrainRequest,
    Update,
    decode,
    encode,
)

StopReason = Literal["rounds", "patience"]


@dataclass(frozen=True)
class RoundsResult:
    """What a federated study ends with.

    Attributes:
        parameters: The global model after the last round.
        rounds: Rounds done.
        best_parameters: The global model after the best round.
        best_round: The round with the lowest validation loss; the last one if none was measured.
        best_loss: That loss, or None.
        reason: Why it ended: all ``rounds`` are done, or ``patience`` ran out.
        history: All events, as in ``history.jsonl``.
    """

    parameters: Parameters = field(repr=False)
    rounds: int
    best_parameters: Parameters = field(repr=False)
    best_round: int
    best_loss: float | None
    reason: StopReason
    history: tuple[Event, ...] = field(repr=False)


def run_rounds(
    settings: CoordinatorSettings,
    initial: Parameters,
    engine: Engine,
    folder: Path,
    *,
    resume: bool = False,
    progress: Progress = silent,
) -> RoundsResult:
    """Train one global model over all rounds.

    Killed at any moment and resumed, it ends with the same weights to the bit, given hospitals that
    answer a repeated request alike.

    Args:
        settings: The coordinator's part of the study.
        initial: The global model to start from; not changed, and unused when going on.
        engine: Carries messages to hospitals.
        folder: Run folder, for ``history.jsonl`` and ``rounds/``.
        resume: Go on from the folder's last checkpoint, or start where there is none.
        progress: Told of every hospital's reply and every round.

    Raises:
        HistoryError: The folder holds a run and ``resume`` is not set, or a run with other settings.
        NotEnoughHospitalsError: Fewer usable updates or evaluations than the study's minimum.
        RoundError: The global model is no longer finite.
        SettingsError: The strategy does not fit the network.
    """
    strategy = make_strategy(settings)
    state, history = _initialise(settings, strategy, initial, engine, folder, resume=resume)
    while (reason := _reason_to_stop(settings, state)) is None:
        progress("rounds", state.round, settings.federation.rounds)
        plan = plan_round(settings, strategy, state.round + 1)
        event: Event = {"event": "round", "round": plan.round}
        try:
            parameters, moments = _train(settings, strategy, plan, state, engine, event, progress)
            loss = _evaluate(settings, plan, parameters, engine, event, progress)
        except RoundError as error:
            history.append({**event, "event": "failed", "reason": error.what})
            raise
        state = dataclasses.replace(
            _decide(state, plan.round, loss, evaluated="evaluation" in event),
            parameters=parameters,
            strategy=moments,
            events=len(history) + 1,
        )
        # History first: after a kill between the two, a resumed run cuts the event off and repeats it.
        history.append({**event, "best_round": state.best_round})
        write_checkpoint(folder, state)
    progress("rounds", state.round, settings.federation.rounds)
    history.append({"event": "end", "reason": reason, "rounds": state.round, "best_round": state.best_round})
    best_path = checkpoint_path(folder, state.best_round)
    best = state if state.best_round == state.round else read_checkpoint(best_path)
    return RoundsResult(
        parameters=state.parameters,
        rounds=state.round,
        best_parameters=best.parameters,
        best_round=state.best_round,
        best_loss=state.best_loss,
        reason=reason,
        history=history.events,
    )


def _initialise(
    settings: CoordinatorSettings,
    strategy: Strategy,
    initial: Parameters,
    engine: Engine,
    folder: Path,
    *,
    resume: bool,
) -> tuple[RunState, History]:
    """Step 1."""
    found = latest(folder)
    if not resume and (found or (folder / HISTORY_NAME).exists()):
        raise HistoryError(
            f"{folder} already holds a run.",
            why="A new one would overwrite it.",
            fix="Go on with --resume, or choose another output.",
        )
    if found:
        state = read_checkpoint(found)
        check_same_study(state, found, study=settings.study, fingerprint=settings.fingerprint)
        return state, History(folder, keep=state.events)
    history = History(folder)
    history.append(
        {
            "event": "start",
            "study": settings.study,
            "fingerprint": settings.fingerprint,
            "strategy": settings.federation.strategy,
            "rounds": settings.federation.rounds,
            "hospitals": engine.hospitals,
            "classes": settings.classes,
        }
    )
    state = RunState(
        study=settings.study,
        fingerprint=settings.fingerprint,
        round=0,
        events=len(history),
        best_round=0,
        best_loss=None,
        waited=0,
        parameters=initial,
        strategy=strategy.start(initial),
    )
    write_checkpoint(folder, state)
    return state, history


def _train(
    settings: CoordinatorSettings,
    strategy: Strategy,
    plan: RoundPlan,
    state: RunState,
    engine: Engine,
    event: Event,
    progress: Progress,
) -> tuple[Parameters, Parameters]:
    """Steps 2 to 6; returns the next global model and moments, and tells ``event`` what happened."""
    template = strategy.shared(state.parameters)
    running = RunningMean(template)
    totals = {"loss_sum": 0.0, "correct": 0, "seen": 0}

    def accept(hospital: str, content: bytes) -> Event:
        update = decode(content, Update)
        check_update(update, hospital, plan, template)
        running.add(update.delta, update.images)
        for name in totals:
            totals[name] += getattr(update, name)
        return {
            "images": update.images,
            "loss": update.loss_sum / update.seen,
            "accuracy": update.correct / update.seen,
            "seconds": update.seconds,
        }

    participants = draw_participants(engine.hospitals, settings, plan.round)
    request = encode(TrainRequest(plan, state.parameters))
    arrived = collect(engine, participants, request, accept, step="training", progress=progress)
    event |= {
        "participants": participants,
        "learning_rate": [plan.learning_rate_start, plan.learning_rate_end],
        **_of(arrived),
    }
    arrived.require(settings.federation.minimum_hospitals, f"Round {plan.round}")
    began = time.perf_counter()
    parameters, moments = strategy.update(state.parameters, running.finish(), state.strategy)
    event |= {
        "images": running.images,
        "loss": totals["loss_sum"] / totals["seen"],
        "accuracy": totals["correct"] / totals["seen"],
        "seconds": {
            "training": arrived.seconds,
            "aggregation": arrived.summing_seconds + time.perf_counter() - began,
        },
    }
    return parameters, moments


def _evaluate(
    settings: CoordinatorSettings,
    plan: RoundPlan,
    parameters: Parameters,
    engine: Engine,
    event: Event,
    progress: Progress,
) -> float | None:
    """Step 7, where the round is due for it; returns the federation's validation loss."""
    if plan.round % settings.federation.evaluate_every and plan.round != plan.rounds:
        return None
    request = EvaluateRequest(settings.study, plan.round, settings.fingerprint, "validation", parameters)
    counts = RunningCounts()

    def accept(hospital: str, content: bytes) -> Event:
        evaluation = decode(content, Evaluation)
        check_evaluation(evaluation, hospital, request, len(settings.classes), counts.bins)
        counts.add(evaluation)
        own = figures(evaluation.loss_sum, evaluation.counts, settings.classes)
        return {**own, "seconds": evaluation.seconds}

    arrived = collect(engine, engine.hospitals, encode(request), accept, step="evaluation", progress=progress)
    total = counts.figures(settings.classes)
    event["evaluation"] = {"split": request.split, **total, **_of(arrived), "seconds": arrived.seconds}
    arrived.require(settings.federation.minimum_hospitals, f"Evaluation of round {plan.round}")
    loss: float | None = total["loss"]
    return loss


def _of(arrived: Collected) -> Event:
    return {"hospitals": arrived.hospitals, "missing": arrived.missing, "refused": arrived.refused}


def _decide(state: RunState, round_number: int, loss: float | None, *, evaluated: bool) -> RunState:
    """Step 8: is this round the best, and how long ago was the best one?"""
    if loss is not None and (state.best_loss is None or loss < state.best_loss):
        return dataclasses.replace(
            state, round=round_number, best_round=round_number, best_loss=loss, waited=0
        )
    best_round = round_number if state.best_loss is None else state.best_round
    return dataclasses.replace(
        state, round=round_number, best_round=best_round, waited=state.waited + evaluated
    )


def _reason_to_stop(settings: CoordinatorSettings, state: RunState) -> StopReason | None:
    if state.round >= settings.federation.rounds:
        return "rounds"
    if 0 < settings.training.patience <= state.waited:
        return "patience"
    return None
