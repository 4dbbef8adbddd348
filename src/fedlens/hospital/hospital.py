"""One hospital: its images, its training, its state. The only way in or out is a message."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from fedlens.decision.totals import BasisTotals, ScoreTotals
from fedlens.errors import BadUpdateError, RoundError, SettingsError
from fedlens.hospital.decision import Advising, LocalAdvice, advice_message
from fedlens.hospital.device import choose_device
from fedlens.hospital.evaluation import evaluation_counts, predict
from fedlens.hospital.explanation import Explanations, LocalExplanation
from fedlens.hospital.images import HospitalImages
from fedlens.hospital.map_losses import MapLosses
from fedlens.hospital.optimizer import Optimizer
from fedlens.hospital.regions import ImageRegions
from fedlens.hospital.state import load_state, save_state
from fedlens.hospital.training import LocalPlan, TrainingTotals, train
from fedlens.hospital.weighting import UpdateWeight
from fedlens.models.fingerprint import fingerprint
from fedlens.models.network import Network
from fedlens.models.parameters import from_parameters, norm_names, to_parameters
from fedlens.progress import Progress, silent
from fedlens.protocol.codec import decode, encode, kind_of
from fedlens.protocol.messages import (
    AdviceBasis,
    AdviceScores,
    BasisRequest,
    EvaluateRequest,
    Evaluation,
    ExplainRequest,
    ExplanationTotals,
    MeasureRequest,
    Noted,
    Parameters,
    RoundPlan,
    ScoresRequest,
    TrainRequest,
    Update,
)
from fedlens.study import Study

_MEASURED = "validation"


@dataclass(frozen=True)
class LocalTraining:
    """What one round of local training came to.

    Attributes:
        delta: Local minus global floating arrays; the plain local value of integer counters.
        totals: How training went.
        weight: Images that the update counts for in the average.
    """

    delta: Parameters = field(repr=False)
    totals: TrainingTotals
    weight: int


@dataclass(frozen=True)
class LocalEvaluation:
    """Sum of cross entropy, count arrays and wall seconds of one evaluation."""

    loss_sum: float
    counts: Parameters = field(repr=False)
    seconds: float


class Hospital:
    """One hospital of a study, addressed only by messages.

    Args:
        name: As the roster spells it.
        study: The settings every member of the study holds.
        network: A network to work with; its weights are overwritten by every request.
        splits: This hospital's images by split name; ``train`` and ``validation`` at least.
        folder: Where optimiser state and personal arrays stay.
        batch_size: Local images a step.
        class_names: In the order of the network's outputs; numbers where empty.
        progress: Told after every batch of training or explaining; what it raises ends the work.

    Raises:
        SettingsError: The study's explanation method does not suit the network.
    """

    def __init__(
        self,
        name: str,
        study: Study,
        network: Network,
        splits: Mapping[str, HospitalImages],
        folder: Path,
        *,
        batch_size: int,
        class_names: Sequence[str] = (),
        progress: Progress = silent,
    ) -> None:
        self.name = name
        self._study = study
        self._digest = study.digest()
        self._device = choose_device(study.training.device)
        self._network: Network = network.to(  # type: ignore[call-overload]
            self._device, memory_format=torch.channels_last
        )
        self._fingerprint = fingerprint(network)
        self._splits = splits
        self._folder = folder
        self._batch_size = batch_size
        self._progress = progress
        training, held_out = ImageRegions(splits["train"]), ImageRegions(splits[_MEASURED])
        map_losses = MapLosses(study.explanation, name, training)
        self._map_losses = map_losses if map_losses.active else None
        self._weight = UpdateWeight(study.explanation, len(splits["train"]), held_out)
        names = class_names or [str(number) for number in range(network.classes)]
        self._explanations = Explanations(
            name, study.explanation, held_out, training, names, folder, progress
        )
        self._explanations.check_method(network)
        self._advising = Advising(name, study, splits, progress)

    @property
    def images(self) -> int:
        """Training images."""
        return len(self._splits["train"])

    @property
    def validation_images(self) -> int:
        """Validation images."""
        return len(self._splits["validation"])

    @property
    def trained_names(self) -> frozenset[str]:
        """Names of the arrays that gradients reach."""
        return frozenset(name for name, _ in self._network.named_parameters())

    @property
    def classes(self) -> int:
        """Classes of the study."""
        return self._network.classes

    @property
    def norm_bound(self) -> float:
        """Largest norm of an update that the study allows; 0 where the rounds' plans say."""
        return self._study.sealing.norm_bound

    @property
    def personal_names(self) -> frozenset[str]:
        """Arrays of which this hospital uses its own once it has some, whatever a request holds (FedBN)."""
        fedbn = self._study.federation.strategy == "fedbn"
        return norm_names(self._network) if fedbn else frozenset()

    def shared_arrays(self, personal: Collection[str]) -> Parameters:
        """Arrays that updates hold, with this network's present values."""
        return {name: array for name, array in to_parameters(self._network).items() if name not in personal}

    def handle(self, request: bytes, own: bytes = b"") -> bytes:
        """Answer one message of the coordinator in the clear.

        Raises:
            RoundError: The message cannot be read, or asks for a seal that this study does not have.
            BadUpdateError: It belongs to another study or network, or training diverged.
        """
        kind = kind_of(request)
        if kind == ExplanationTotals.kind:
            return encode(self.note(decode(request, ExplanationTotals)))
        if kind == TrainRequest.kind:
            asked = decode(request, TrainRequest)
            self._refuse_seal(asked.seal, own)
            return encode(self._update(asked.plan, self.train(asked)))
        if kind == ExplainRequest.kind:
            wanted = decode(request, ExplainRequest)
            self._refuse_seal(wanted.seal, own)
            return encode(self.explain(wanted).message)
        if kind == BasisRequest.kind:
            first = decode(request, BasisRequest)
            self._refuse_seal(first.seal, own)
            return encode(advice_message(AdviceBasis, self.name, first, self.basis(first)))
        if kind == ScoresRequest.kind:
            second = decode(request, ScoresRequest)
            self._refuse_seal(second.seal, own)
            return encode(advice_message(AdviceScores, self.name, second, self.scores(second)))
        measured = decode(request, EvaluateRequest)
        self._refuse_seal(measured.seal, own)
        return encode(self._evaluation(measured, self.measure(measured)))

    def network_with(self, parameters: Parameters, round_number: int) -> Network:
        """The hospital's network holding global weights and its own personal arrays."""
        from_parameters(self._network, parameters)
        personal = load_state(self._folder, round_number, None)
        self._network.load_state_dict(personal, strict=False)
        return self._network

    def check(self, study: str, print_of_network: str) -> None:
        """Refuse a request of another study or for another network.

        Raises:
            BadUpdateError: Names both digests.
        """
        if study != self._digest:
            raise BadUpdateError(
                f"Hospital {self.name} refuses a request of study {study[:12]}.",
                why=f"Its own study file has digest {self._digest[:12]}.",
                fix="Give every member the same study file.",
            )
        if print_of_network != self._fingerprint:
            raise BadUpdateError(
                f"Hospital {self.name} refuses a network with fingerprint {print_of_network[:12]}.",
                why=f"It agreed to {self._fingerprint[:12]}.",
                fix="Give every member the same [model] settings.",
            )

    def train(self, request: TrainRequest) -> LocalTraining:
        """Train from a request's weights and keep the state that the next round needs.

        Raises:
            BadUpdateError: Another study or network, or training diverged.
        """
        plan = request.plan
        self.check(plan.study, plan.fingerprint)
        self._check_plan(plan)
        network = self.network_with(request.parameters, plan.round - 1)
        optimizer = Optimizer(network, self._study.training)
        if self._study.federation.optimizer_state == "keep":
            load_state(self._folder, plan.round - 1, optimizer)
        before = to_parameters(network)
        totals = train(
            network,
            optimizer,
            self._splits["train"],
            self._study.training,
            self._study.augment,
            LocalPlan(
                start=(plan.round - 1) * plan.passes,
                end=plan.round * plan.passes,
                batch_size=self._batch_size,
                learning_rate_start=plan.learning_rate_start,
                learning_rate_end=plan.learning_rate_end,
                seed=self._seed(plan.seed),
                proximal_mu=plan.proximal_mu,
            ),
            self._progress,
            self._map_losses,
        )
        after = to_parameters(network)
        keep = self._study.federation.optimizer_state == "keep"
        personal = {name: torch.from_numpy(after[name]) for name in plan.personal}
        save_state(self._folder, plan.round, optimizer if keep else None, personal)
        delta = {
            name: value - before[name] if np.issubdtype(value.dtype, np.floating) else value
            for name, value in after.items()
            if name not in plan.personal
        }
        return LocalTraining(delta, totals, self._weight.of(network))

    def measure(self, request: EvaluateRequest) -> LocalEvaluation:
        """Measure a request's weights on held-out images.

        Raises:
            BadUpdateError: Another study or network.
            SettingsError: No such split.
        """
        self._check_measured(request)
        began = time.perf_counter()
        images = self._splits[request.split]
        probabilities = predict(self.network_with(request.parameters, request.round), images)
        loss_sum, counts = evaluation_counts(probabilities, images.labels)
        return LocalEvaluation(loss_sum, dict(counts), time.perf_counter() - began)

    def explain(self, request: ExplainRequest) -> LocalExplanation:
        """Explain held-out images with a request's weights; all but sums stays here, and is kept.

        Raises:
            BadUpdateError: Another study or network, or a study without such measures.
            SettingsError: No such split.
            ExplanationError: The weights give outputs that are not finite.
        """
        self._check_measured(request)
        return self._explanations.answer(request, self.network_with(request.parameters, request.round))

    def basis(self, request: BasisRequest) -> LocalAdvice[BasisTotals]:
        """Add up, with a request's weights, what temperature and likeness are fitted from.

        Raises:
            BadUpdateError: Another study or network, or a study that fits no advice across hospitals.
            SettingsError: No such split.
        """
        self._check_measured(request)
        return self._advising.basis(request, self.network_with(request.parameters, request.round))

    def scores(self, request: ScoresRequest) -> LocalAdvice[ScoreTotals]:
        """Count held-out images by score, with a request's weights and what it says was fitted.

        Raises:
            BadUpdateError: As for :meth:`basis`, or what no fit gives.
            SettingsError: No such split.
        """
        self._check_measured(request)
        return self._advising.scores(request, self.network_with(request.parameters, request.round))

    def note(self, told: ExplanationTotals) -> Noted:
        """Take in what all hospitals' maps came to together.

        Raises:
            BadUpdateError: Another study, or totals that this hospital's own are not in.
            RoundError: Of a round that it measured no maps in.
        """
        self.check(told.study, self._fingerprint)
        return self._explanations.note(told)

    def _check_measured(self, request: MeasureRequest) -> None:
        """Refuse to measure what no coordinator may know."""
        self.check(request.study, request.fingerprint)
        if not 1 <= request.round <= self._study.federation.rounds:
            raise BadUpdateError(
                f"Hospital {self.name} refuses to measure after round {request.round}.",
                why=f"The study has {self._study.federation.rounds} rounds.",
            )
        if request.split != _MEASURED:
            raise SettingsError(
                f"Hospital {self.name} measures no split {request.split!r}.",
                why=f"A coordinator learns figures of {_MEASURED} images only.",
            )

    def _check_plan(self, plan: RoundPlan) -> None:
        """Refuse a round that the study file does not have: how one trains decides what an update tells."""
        study, federation = self._study, self._study.federation
        peak = federation.learning_rate or study.training.learning_rate
        prox = federation.strategy == "fedprox"
        rates = (plan.learning_rate_start, plan.learning_rate_end)
        for name, holds in (
            ("rounds", plan.rounds == federation.rounds and 1 <= plan.round <= plan.rounds),
            ("passes", plan.passes == study.training.passes / federation.rounds),
            ("seed", plan.seed == study.seed),
            ("learning rate", all(0 <= rate <= peak for rate in rates)),
            ("proximal_mu", plan.proximal_mu == (federation.proximal_mu if prox else 0.0)),
            ("personal arrays", plan.personal == tuple(sorted(self.personal_names))),
        ):
            if not holds:
                raise BadUpdateError(
                    f"Hospital {self.name} refuses round {plan.round}: its {name} are not the study's.",
                    fix="Give every member the same study file.",
                )

    def _update(self, plan: RoundPlan, trained: LocalTraining) -> Update:
        totals = trained.totals
        return Update(
            hospital=self.name,
            study=plan.study,
            round=plan.round,
            fingerprint=plan.fingerprint,
            images=trained.weight,
            loss_sum=totals.loss_sum,
            correct=totals.correct,
            seen=totals.seen,
            seconds=totals.seconds,
            delta=trained.delta,
        )

    def _evaluation(self, request: EvaluateRequest, measured: LocalEvaluation) -> Evaluation:
        return Evaluation(
            hospital=self.name,
            study=request.study,
            round=request.round,
            fingerprint=request.fingerprint,
            split=request.split,
            loss_sum=measured.loss_sum,
            seconds=measured.seconds,
            counts=measured.counts,
        )

    def _refuse_seal(self, seal: bytes, own: bytes) -> None:
        if seal or own:
            raise RoundError(
                f"Hospital {self.name} was asked for a sealed answer in an unsealed study.",
                fix="Give every member the same study file.",
            )

    def _seed(self, root: int) -> int:
        """The round's seed made the hospital's own, so that no two draw the same augmentation."""
        content = f"{root}/{self.name}".encode()
        return int.from_bytes(hashlib.sha256(content).digest()[:7], "big")
