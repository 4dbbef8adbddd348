"""Rounds in the clear: the coordinator sees every hospital's update and counts."""

from __future__ import annotations

import time
from collections.abc import Sequence

from fedlens.coordinator.advice import AdviceStep, T, check_advice
from fedlens.coordinator.aggregation import check_update
from fedlens.coordinator.collection import Accept, Collected, collect
from fedlens.coordinator.evaluation import RunningCounts, check_evaluation, figures
from fedlens.coordinator.explanation import (
    check_explanation,
    figures_by_hospital,
    tell_totals,
    totals_said,
)
from fedlens.coordinator.gathering import HELD_OUT, Trained, outcome
from fedlens.coordinator.history import Event
from fedlens.coordinator.robust import make_aggregate
from fedlens.coordinator.settings import CoordinatorSettings
from fedlens.engines.engine import Engine
from fedlens.metrics.explanation_totals import QualityTotals
from fedlens.progress import Progress
from fedlens.protocol.codec import decode, encode
from fedlens.protocol.messages import (
    EvaluateRequest,
    Evaluation,
    ExplainRequest,
    Explanation,
    ExplanationTotals,
    MeasureRequest,
    Parameters,
    RoundPlan,
    TrainRequest,
    Update,
)


class PlainGathering:
    """Takes updates one after another into an aggregate; see :class:`Gathering`.

    Args:
        settings: The coordinator's part of the study.
        engine: Carries messages to hospitals.
    """

    sealed = False

    def __init__(self, settings: CoordinatorSettings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine

    def begin(self, carried: Parameters, progress: Progress) -> Event | None:
        """Nothing needs to be made ready."""
        return None

    def carried(self) -> Parameters:
        """Nothing."""
        return {}

    def train(
        self,
        plan: RoundPlan,
        parameters: Parameters,
        template: Parameters,
        participants: Sequence[str],
        event: Event,
        progress: Progress,
    ) -> Trained:
        """See :meth:`Gathering.train`."""
        running = make_aggregate(self._settings, template)
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

        request = encode(TrainRequest(plan, parameters))
        arrived = collect(self._engine, participants, request, accept, step="training", progress=progress)
        event |= outcome(arrived)
        arrived.require(self._settings.federation.minimum_hospitals, f"Round {plan.round}")
        began = time.perf_counter()
        mean = running.finish()
        event["seconds"] = {
            "training": arrived.seconds,
            "aggregation": arrived.summing_seconds + time.perf_counter() - began,
        }
        return Trained(mean, running.images, totals["loss_sum"], int(totals["correct"]), int(totals["seen"]))

    def evaluate(
        self, plan: RoundPlan, parameters: Parameters, event: Event, progress: Progress
    ) -> float | None:
        """See :meth:`Gathering.evaluate`."""
        classes = self._settings.classes
        request = EvaluateRequest(plan.study, plan.round, plan.fingerprint, HELD_OUT, parameters)
        counts = RunningCounts()

        def accept(hospital: str, content: bytes) -> Event:
            evaluation = decode(content, Evaluation)
            check_evaluation(evaluation, hospital, request, len(classes), counts.bins)
            counts.add(evaluation)
            own = figures(evaluation.loss_sum, evaluation.counts, classes)
            return {**own, "seconds": evaluation.seconds}

        arrived = self._collected(request, accept, "evaluation", event, progress)
        total = counts.figures(classes)
        event |= total
        arrived.require(self._settings.federation.minimum_hospitals, f"Evaluation of round {plan.round}")
        loss: float | None = total["loss"]
        return loss

    def explain(self, plan: RoundPlan, parameters: Parameters, event: Event, progress: Progress) -> None:
        """See :meth:`Gathering.explain`."""
        classes = len(self._settings.classes)
        request = ExplainRequest(plan.study, plan.round, plan.fingerprint, HELD_OUT, parameters)
        totals: dict[str, QualityTotals] = {}

        def accept(hospital: str, content: bytes) -> Event:
            explanation = decode(content, Explanation)
            totals[hospital] = check_explanation(explanation, hospital, request, classes)
            return {"seconds": explanation.seconds}

        arrived = self._collected(request, accept, "explanation", event, progress)
        everyone = sum(totals.values(), start=QualityTotals.zero(classes))
        event |= totals_said(self._settings, everyone)
        event["by_hospital"] = figures_by_hospital(self._settings, totals)
        arrived.require(self._settings.federation.minimum_hospitals, f"Explanation of round {plan.round}")
        told = ExplanationTotals(plan.study, plan.round, everyone.numbers())
        event["told"] = tell_totals(self._engine, tuple(totals), told, encode(told), progress)

    def add_up(self, step: AdviceStep[T], request: MeasureRequest, event: Event, progress: Progress) -> T:
        """See :meth:`Gathering.add_up`."""
        everyone = step.zero

        def accept(hospital: str, content: bytes) -> Event:
            nonlocal everyone
            answer = decode(content, step.answer)
            everyone += check_advice(answer, hospital, request, step)
            return {"seconds": answer.seconds}

        what = f"advice {step.name}"
        arrived = self._collected(request, accept, what, event, progress)
        arrived.require(self._settings.federation.minimum_hospitals, what.capitalize())
        return everyone

    def _collected(
        self, request: MeasureRequest, accept: Accept, step: str, event: Event, progress: Progress
    ) -> Collected:
        """Ask all hospitals for a measurement; ``event`` is told who answered."""
        names = self._engine.hospitals
        arrived = collect(self._engine, names, encode(request), accept, step=step, progress=progress)
        event |= {"split": request.split, **outcome(arrived), "seconds": arrived.seconds}
        return arrived
