"""Sealed rounds: the coordinator reads sums over hospitals and nothing else."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedlens.coordinator.advice import AdviceStep, T
from fedlens.coordinator.aggregation import MOST_IMAGES, mean_counter
from fedlens.coordinator.evaluation import figures, of_the_same_images
from fedlens.coordinator.explanation import tell_totals, totals_said
from fedlens.coordinator.gathering import HELD_OUT, Trained
from fedlens.coordinator.history import Event
from fedlens.coordinator.ranges import RangeKeeper
from fedlens.coordinator.schedule import draw_participants, steps_of
from fedlens.coordinator.settings import CoordinatorSettings
from fedlens.coordinator.trail import Trail
from fedlens.engines.engine import Engine
from fedlens.errors import RoundError
from fedlens.metrics.explanation_totals import QualityTotals
from fedlens.progress import Progress
from fedlens.protocol.codec import digest, encode, sign
from fedlens.protocol.ledger import STEPS
from fedlens.protocol.messages import (
    EnrolRequest,
    EvaluateRequest,
    ExplainRequest,
    ExplanationTotals,
    MeasureRequest,
    Parameters,
    RoundPlan,
    Stamp,
    TrainRequest,
)
from fedlens.protocol.roster import Identity, Roster
from fedlens.protocol.sealed_sum import SealedSum, SumSettings
from fedlens.protocol.totals import (
    LOSS_SCALE,
    MOST_COUNTER,
    Layout,
    counter_names,
    enrol_layout,
    evaluation_layout,
    explain_layout,
    train_layout,
    value_names,
)
from fedlens.protocol.vectors import Opened
from fedlens.study import Study

Request = TrainRequest | MeasureRequest | EnrolRequest


_SHOWN = {
    "enrol": "enrolment",
    "train": "training",
    "evaluate": "evaluation",
    "explain": "explanation",
    "basis": "advice basis",
    "scores": "advice scores",
}
"""What a step is called while it is under way."""


@dataclass(frozen=True)
class SealingSetup:
    """What sealing needs beside the study's settings.

    Attributes:
        roster: Signed by every hospital.
        identity: The coordinator's own.
        segment: Starts of the coordinator, this one included.
        threshold: Fewest hospitals whose sum is opened.
        value_bits: Bits of one value.
        norm_bound: From the study; 0 for one that follows the rounds.
    """

    roster: Roster
    identity: Identity
    segment: int
    threshold: int
    value_bits: int
    norm_bound: float = 0.0

    @classmethod
    def of(
        cls, study: Study, roster: Roster, identity: Identity, segment: int, threshold: int
    ) -> SealingSetup:
        """What a study's sealing settings come to."""
        sealing = study.sealing
        return cls(roster, identity, segment, threshold, sealing.value_bits, sealing.norm_bound)


@dataclass(frozen=True)
class Sum:
    """One opened sum.

    Attributes:
        opened: The numbers.
        hospitals: Over how many.
        totals: Integers by name.
    """

    opened: Opened
    hospitals: int
    totals: Mapping[str, Any]


class SealedGathering:
    """Brings hospitals' numbers together in sealed sums; see ``gathering.py``.

    Args:
        settings: The coordinator's part of the study.
        engine: Carries messages to hospitals.
        setup: Roster, identity, segment, threshold and bits.
    """

    sealed = True

    def __init__(self, settings: CoordinatorSettings, engine: Engine, setup: SealingSetup) -> None:
        self._settings = settings
        self._engine = engine
        self._setup = setup
        self._ready: SealedSum | None = None
        self._ranges = RangeKeeper({}, setup.norm_bound)

    def begin(self, carried: Parameters, progress: Progress) -> Event | None:
        """Bring the roster's image counts together, or remember what they came to."""
        began = time.perf_counter()
        self._ranges = RangeKeeper(carried, self._setup.norm_bound)
        event: Event = {
            "event": "segment",
            "number": self._setup.segment,
            "roster": self._setup.roster.fingerprint(),
            "threshold": self._setup.threshold,
        }
        if not carried:
            request = EnrolRequest(self._settings.study, self._settings.fingerprint)
            settings = SumSettings(self._setup.value_bits, totals=enrol_layout().size)
            stamp = self._stamp(0, "enrol")
            done = self._sum(
                stamp, self._engine.hospitals, request, settings, enrol_layout(), event, progress
            )
            counts = {name: int(number) for name, number in done.totals.items()}
            most = MOST_IMAGES * done.hospitals
            self._hold(stamp, 1 <= counts["images"] < most and 0 <= counts["validation"] < most)
            self._ranges.enrolled(counts["images"])
            event |= counts
        return {**event, "seconds": time.perf_counter() - began}

    def carried(self) -> Parameters:
        """Ranges, norms and counts that the next rounds rest on."""
        return self._ranges.carried()

    def train(
        self,
        plan: RoundPlan,
        parameters: Parameters,
        template: Parameters,
        participants: Sequence[str],
        event: Event,
        progress: Progress,
    ) -> Trained:
        """See :meth:`fedlens.coordinator.gathering.Gathering.train`."""
        names, layout = value_names(template), train_layout(template)
        bits, ranges = self._ranges.ranges(
            template, names, self._setup.value_bits, self._settings.buffer_names
        )
        bound = self._ranges.norm_bound(parameters, self._trained(names))
        settings = SumSettings(
            value_bits=bits,
            sizes=[template[name].size for name in names],
            ranges=ranges,
            totals=layout.size,
            images=self._ranges.images,
            norm_bound=bound,
        )
        request = TrainRequest(plan, parameters)
        stamp = self._stamp(plan.round, "train")
        done = self._sum(stamp, participants, request, settings, layout, event, progress)
        totals = done.totals
        images, seen, correct = (int(totals[name]) for name in ("images", "seen", "correct"))
        exponents = np.asarray(totals["exponents"])
        self._hold(
            stamp,
            1 <= images < MOST_IMAGES * done.hospitals
            and 0 <= correct <= seen < MOST_IMAGES * done.hospitals
            and seen >= 1
            and int(totals["loss"]) >= 0
            and 0 <= int(totals["saturated"]) <= sum(settings.sizes) * done.hospitals
            and bool((exponents >= 0).all() and (exponents.sum(axis=1) == done.hospitals).all()),
        )
        mean = self._mean(done, names, template, images)
        counters = [mean[name] for name in counter_names(template)]
        self._hold(stamp, all(bool(((array >= 0) & (array < MOST_COUNTER)).all()) for array in counters))
        self._ranges.learn(names, totals["exponents"], mean, self._trained(names))
        event["sealing"] |= {
            "value_bits": bits,
            "saturated": int(totals["saturated"]),
            "norm_bound": bound,
            "values": sum(settings.sizes),
        }
        event["sealing"]["seconds"]["training"] = int(totals["milliseconds"]) / 1000
        return Trained(mean, images, int(totals["loss"]) / LOSS_SCALE, correct, seen)

    def evaluate(
        self, plan: RoundPlan, parameters: Parameters, event: Event, progress: Progress
    ) -> float | None:
        """See :meth:`fedlens.coordinator.gathering.Gathering.evaluate`."""
        classes = self._settings.classes
        request = EvaluateRequest(plan.study, plan.round, plan.fingerprint, HELD_OUT, parameters)
        stamp = self._stamp(plan.round, "evaluate")
        done = self._counted(stamp, request, evaluation_layout(len(classes)), event, progress)
        counts = {name: np.asarray(done.totals[name]) for name in ("confusion", "positives", "negatives")}
        self._hold(
            stamp,
            all(bool((array >= 0).all()) for array in counts.values())
            and int(done.totals["loss"]) >= 0
            and of_the_same_images(counts),
        )
        total = figures(int(done.totals["loss"]) / LOSS_SCALE, counts, classes)
        event |= total
        loss: float | None = total["loss"]
        return loss

    def explain(self, plan: RoundPlan, parameters: Parameters, event: Event, progress: Progress) -> None:
        """See :meth:`fedlens.coordinator.gathering.Gathering.explain`."""
        request = ExplainRequest(plan.study, plan.round, plan.fingerprint, HELD_OUT, parameters)
        stamp = self._stamp(plan.round, "explain")
        layout = explain_layout(len(self._settings.classes))
        done = self._counted(stamp, request, layout, event, progress)
        totals = QualityTotals.from_numbers(done.totals)
        self._hold(stamp, totals.possible(done.hospitals))
        event |= totals_said(self._settings, totals)
        told = ExplanationTotals(plan.study, plan.round, totals.numbers())
        signed = sign(told, self._setup.identity)
        event["told"] = tell_totals(self._engine, tuple(event["hospitals"]), told, signed, progress)

    def add_up(self, step: AdviceStep[T], request: MeasureRequest, event: Event, progress: Progress) -> T:
        """See :meth:`fedlens.coordinator.gathering.Gathering.add_up`."""
        stamp = self._stamp(request.round, step.name)
        done = self._counted(stamp, request, step.layout, event, progress)
        totals = step.zero.from_numbers(done.totals)
        self._hold(stamp, totals.possible(done.hospitals))
        return totals

    def _counted(
        self, stamp: Stamp, request: MeasureRequest, layout: Layout, event: Event, progress: Progress
    ) -> Sum:
        """The sum of what all hospitals count on held-out images."""
        settings = SumSettings(self._setup.value_bits, totals=layout.size)
        done = self._sum(stamp, self._engine.hospitals, request, settings, layout, event, progress)
        event |= {"split": request.split, "seconds": sum(event["seconds"].values())}
        return done

    def _sum(
        self,
        stamp: Stamp,
        names: Sequence[str],
        request: Request,
        settings: SumSettings,
        layout: Layout,
        event: Event,
        progress: Progress,
    ) -> Sum:
        """One sealed sum from keys to opened numbers; ``event`` is told what happened."""
        trail = Trail(self._engine, stamp, self._setup.threshold, event, progress)
        current = self._keyed(stamp, names, trail)
        following = self._following(stamp, current.with_shares)
        settings = dataclasses.replace(settings, next_stamp=following)
        seal = current.make_plan(settings, task=digest(request, without="seal"))
        sealed = encode(dataclasses.replace(request, seal=seal))
        own = {name: current.material(name) for name in current.with_shares}

        def take(hospital: str, content: bytes) -> Event:
            return {"seconds": current.take_upload(hospital, content).sealing_seconds}

        arrived = trail.exchange(_SHOWN[stamp.step], current.with_shares, sealed, take, own)
        sealing = {name: said["seconds"] for name, said in arrived.hospitals.items()}
        current.close()
        if current.dropped:
            trail.exchange(
                "survivors", current.survivors, current.survivors_request(), current.take_signature
            )
        keep = following is not None and current.survivors == self._next_names(following)
        asked = current.unmask_request(with_next=keep)
        trail.exchange("unmasking", current.survivors, asked, current.take_unmasking)
        began = time.perf_counter()
        opened = current.open()
        opening = time.perf_counter() - began
        self._ready = self._pipelined(following, current) if following and keep else None
        trail.tell(current, arrived, sealing, opening)
        return Sum(opened, len(current.survivors), layout.restore(opened.totals))

    def _keyed(self, stamp: Stamp, names: Sequence[str], trail: Trail) -> SealedSum:
        """A sum that all who are there have shared seeds for: pipelined, or by two more exchanges."""
        ready, self._ready = self._ready, None
        if ready is not None and ready.stamp == stamp and ready.with_shares == tuple(names):
            return ready
        current = SealedSum(stamp, self._setup.roster, self._setup.identity, self._setup.threshold)
        trail.exchange("keys", names, current.keys_request(), current.take_keys)
        trail.exchange("shares", current.with_keys, current.shares_request(), current.take_shares)
        return current

    def _pipelined(self, stamp: Stamp, last: SealedSum) -> SealedSum | None:
        """The next sum, with the keys and shares that came with the last; None where one does not fit."""
        following = SealedSum(stamp, self._setup.roster, self._setup.identity, self._setup.threshold)
        try:
            for name, content in last.next_keys.items():
                following.take_keys(name, content)
            for name, content in last.next_shares.items():
                following.take_shares(name, content)
        except RoundError:
            # Keys and shares are asked for anew then, and whoever sends false ones is named there.
            return None
        return following

    def _following(self, stamp: Stamp, names: Sequence[str]) -> Stamp | None:
        """The sum after this one, where its hospitals are just those of this one."""
        # After these steps no round follows, however early it is.
        last = stamp.step in ("basis", "scores") or stamp.round == self._settings.federation.rounds
        after = [
            step
            for step in steps_of(self._settings, stamp.round, last=last)
            if STEPS.index(step) > STEPS.index(stamp.step)
        ]
        if stamp.round and after:
            following = dataclasses.replace(stamp, step=after[0])
        elif not last:
            following = dataclasses.replace(stamp, round=stamp.round + 1, step="train")
        else:
            return None
        return following if self._next_names(following) == tuple(names) else None

    def _next_names(self, stamp: Stamp) -> tuple[str, ...]:
        if stamp.step == "train":
            return draw_participants(self._engine.hospitals, self._settings, stamp.round)
        return tuple(self._engine.hospitals)

    def _hold(self, stamp: Stamp, consistent: bool) -> None:
        """Refuse a sum whose totals contradict each other: nobody can say whose numbers were false."""
        if not consistent:
            raise RoundError(
                f"Round {stamp.round} ({stamp.step}): the opened totals contradict each other.",
                why="Some hospital sealed false numbers or masks; a sum does not show which.",
                fix="Ask every hospital for its log, and go on with --resume.",
            )

    def _stamp(self, round_number: int, step: str) -> Stamp:
        return Stamp(self._settings.study, self._setup.roster.digest, self._setup.segment, round_number, step)

    def _trained(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if name not in self._settings.buffer_names]

    def _mean(self, done: Sum, names: Sequence[str], template: Parameters, images: int) -> Parameters:
        """The mean update by image count: values were weighted by their share of all enrolled images."""
        mean: Parameters = {}
        values = done.opened.values
        values *= self._ranges.images / images
        start = 0
        for name in names:
            end = start + template[name].size
            mean[name] = values[start:end].reshape(template[name].shape)
            start = end
        for name in counter_names(template):
            mean[name] = mean_counter(np.asarray(done.totals[f"counters/{name}"]), images)
        return mean
