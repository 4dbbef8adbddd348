"""The round loop: the eight steps of EFDL section 3.1, as far as the coordinator takes part in them.

1. Initialise the global model, or go on from the last checkpoint.
2. Distribute it to the round's hospitals.
3. They train, each on its own images.
4. They transmit updates: local minus global weights, sealed unless the study says otherwise.
5. Federated averaging, by image count.
6. Update the global model, and redistribute it.
7. Hospitals explain and measure it on images it was not trained on; only counts come back.
8. Decide which round is the best so far and whether to go on; after the last one, fit what advice
   rests on (``deciding.py``). (The paper's eighth step, the diagnosis itself, is made at the hospital that
   holds the image.)
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedlens.coordinator.checkpoints import (
    RunState,
    check_same_study,
    check_start,
    checkpoint_path,
    latest,
    read_checkpoint,
    remove_torn,
    write_checkpoint,
)
from fedlens.coordinator.deciding import advise, decided
from fedlens.coordinator.gathering import Gathering
from fedlens.coordinator.history import Event, History
from fedlens.coordinator.plain import PlainGathering
from fedlens.coordinator.schedule import (
    StopReason,
    advice_due,
    draw_participants,
    evaluation_due,
    explanation_due,
    plan_round,
    reason_to_stop,
)
from fedlens.coordinator.settings import CoordinatorSettings
from fedlens.coordinator.strategies import Strategy, make_strategy
from fedlens.decision.bundle import DecisionBundle
from fedlens.engines.engine import Engine
from fedlens.errors import RoundError, StoppedError
from fedlens.progress import Progress, silent
from fedlens.protocol.messages import Parameters, RoundPlan

Watch = Callable[[Event], None]
"""Called with each finished round's event, once it is on disk."""


def nobody(event: Event) -> None:
    """Nobody watches."""


@dataclass(frozen=True)
class RoundsResult:
    """What a federated study ends with.

    Attributes:
        parameters: The global model after the last round.
        rounds: Rounds done.
        best_parameters: The global model after the best round.
        best_round: The round with the lowest validation loss; the last one if none was measured.
        best_loss: That loss, or None.
        final_parameters: The global model that the study ends with: after the best round where early
            stopping was asked for, else after the last.
        final_round: That round.
        advice: What was fitted for it across hospitals; None where nothing was.
        reason: Why it ended: all ``rounds`` are done, or ``patience`` ran out.
        history: All events, as in ``history.jsonl``.
    """

    parameters: Parameters = field(repr=False)
    rounds: int
    best_parameters: Parameters = field(repr=False)
    best_round: int
    best_loss: float | None
    final_parameters: Parameters = field(repr=False)
    final_round: int
    advice: DecisionBundle | None = field(repr=False)
    reason: StopReason
    history: tuple[Event, ...] = field(repr=False)


def run_rounds(
    settings: CoordinatorSettings,
    initial: Parameters,
    engine: Engine,
    folder: Path,
    *,
    resume: bool = False,
    gathering: Gathering | None = None,
    watch: Watch = nobody,
    progress: Progress = silent,
) -> RoundsResult:
    """Train one global model over all rounds.

    Killed at any moment and resumed, it ends with the same weights to the bit, given hospitals that
    answer a repeated request alike.

    Args:
        settings: The coordinator's part of the study.
        initial: The global model to start from; not changed, and unused when going on.
        engine: Carries messages to hospitals.
        gathering: How updates come together; in the clear where None.
        watch: Told every round's event.
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
    gathering = gathering or PlainGathering(settings, engine)
    state, history = _initialise(settings, strategy, initial, engine, gathering, folder, resume=resume)
    undecided = advice_due(settings) and not decided(history.events)
    if undecided or reason_to_stop(settings, state) is None:
        state = _begin(gathering, state, history, folder, progress)
    while (reason := reason_to_stop(settings, state)) is None:
        progress("rounds", state.round, settings.federation.rounds)
        state = _round(settings, strategy, gathering, state, engine.hospitals, history, progress)
        write_checkpoint(folder, state)
        watch(history.events[-1])
    progress("rounds", state.round, settings.federation.rounds)
    best_path = checkpoint_path(folder, state.best_round)
    best = state if state.best_round == state.round else read_checkpoint(best_path)
    final = best if settings.training.patience else state
    advice = advise(settings, gathering, state, final, history, folder, progress)
    history.append({"event": "end", "reason": reason, "rounds": state.round, "best_round": state.best_round})
    return RoundsResult(
        parameters=state.parameters,
        rounds=state.round,
        best_parameters=best.parameters,
        best_round=state.best_round,
        best_loss=state.best_loss,
        final_parameters=final.parameters,
        final_round=final.round,
        advice=advice,
        reason=reason,
        history=history.events,
    )


def _initialise(
    settings: CoordinatorSettings,
    strategy: Strategy,
    initial: Parameters,
    engine: Engine,
    gathering: Gathering,
    folder: Path,
    *,
    resume: bool,
) -> tuple[RunState, History]:
    """Step 1."""
    check_start(folder, resume=resume)
    remove_torn(folder)
    found = latest(folder)
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
            "sealed": gathering.sealed,
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
        gathering={},
    )
    write_checkpoint(folder, state)
    return state, history


def _begin(
    gathering: Gathering, state: RunState, history: History, folder: Path, progress: Progress
) -> RunState:
    """Get ready to gather; what that came to is on disk before the first round."""
    try:
        begun = gathering.begin(state.gathering, progress)
    except StoppedError:
        raise
    except RoundError as error:
        history.append({"event": "failed", "round": state.round, "reason": error.what})
        raise
    if begun is None:
        return state
    history.append(begun)
    state = dataclasses.replace(state, gathering=gathering.carried(), events=len(history))
    write_checkpoint(folder, state)
    return state


def _round(
    settings: CoordinatorSettings,
    strategy: Strategy,
    gathering: Gathering,
    state: RunState,
    hospitals: Sequence[str],
    history: History,
    progress: Progress,
) -> RunState:
    """One round, with what the history shall say of it; the caller writes the checkpoint."""
    plan = plan_round(settings, strategy, state.round + 1)
    event: Event = {"event": "round", "round": plan.round}
    try:
        parameters, moments = _train(settings, gathering, strategy, plan, state, hospitals, event, progress)
        loss = _evaluate(settings, gathering, plan, parameters, event, progress)
        decided = _decide(state, plan.round, loss, evaluated="evaluation" in event)
        if explanation_due(settings, plan.round, last=reason_to_stop(settings, decided) is not None):
            event["explanation"] = {}
            gathering.explain(plan, parameters, event["explanation"], progress)
    except StoppedError:
        raise
    except RoundError as error:
        history.append({**event, "event": "failed", "reason": error.what})
        raise
    # History first: after a kill before the checkpoint, a resumed run cuts the event off and repeats it.
    history.append({**event, "best_round": decided.best_round})
    return dataclasses.replace(
        decided,
        parameters=parameters,
        strategy=moments,
        gathering=gathering.carried(),
        events=len(history),
    )


def _train(
    settings: CoordinatorSettings,
    gathering: Gathering,
    strategy: Strategy,
    plan: RoundPlan,
    state: RunState,
    hospitals: Sequence[str],
    event: Event,
    progress: Progress,
) -> tuple[Parameters, Parameters]:
    """Steps 2 to 6; returns the next global model and moments, and tells ``event`` what happened."""
    participants = draw_participants(hospitals, settings, plan.round)
    event |= {
        "participants": participants,
        "learning_rate": [plan.learning_rate_start, plan.learning_rate_end],
    }
    template = strategy.shared(state.parameters)
    trained = gathering.train(plan, state.parameters, template, participants, event, progress)
    began = time.perf_counter()
    parameters, moments = strategy.update(state.parameters, trained.mean, state.strategy)
    event["seconds"]["aggregation"] += time.perf_counter() - began
    event |= {
        "images": trained.images,
        "loss": trained.loss_sum / trained.seen,
        "accuracy": trained.correct / trained.seen,
    }
    return parameters, moments


def _evaluate(
    settings: CoordinatorSettings,
    gathering: Gathering,
    plan: RoundPlan,
    parameters: Parameters,
    event: Event,
    progress: Progress,
) -> float | None:
    """Step 7, where the round is due for it; returns the federation's validation loss."""
    if not evaluation_due(settings.federation, plan.round):
        return None
    event["evaluation"] = {}
    return gathering.evaluate(plan, parameters, event["evaluation"], progress)


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
