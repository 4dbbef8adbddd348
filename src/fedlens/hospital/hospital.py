"""One hospital: its images, its training, its state. The only way in or out is a message."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from fedlens.errors import BadUpdateError, SettingsError
from fedlens.hospital.device import choose_device
from fedlens.hospital.evaluation import evaluation_counts, predict
from fedlens.hospital.images import HospitalImages
from fedlens.hospital.optimizer import Optimizer
from fedlens.hospital.state import load_state, save_state
from fedlens.hospital.training import LocalPlan, train
from fedlens.models.fingerprint import fingerprint
from fedlens.models.network import Network
from fedlens.models.parameters import from_parameters, to_parameters
from fedlens.protocol.messages import (
    EvaluateRequest,
    Evaluation,
    Parameters,
    TrainRequest,
    Update,
    decode,
    encode,
    kind_of,
)
from fedlens.study import Study


class Hospital:
    """One hospital of a study, addressed only by messages.

    Args:
        name: As the roster spells it.
        study: The settings every member of the study holds.
        network: A network to work with; its weights are overwritten by every request.
        splits: This hospital's images by split name; ``train`` and ``validation`` at least.
        folder: Where optimiser state and personal arrays stay.
        batch_size: Local images a step.
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

    @property
    def images(self) -> int:
        """Training images, the FedAvg weight."""
        return len(self._splits["train"])

    def handle(self, request: bytes) -> bytes:
        """Answer one message of the coordinator.

        Raises:
            RoundError: The message cannot be read.
            BadUpdateError: It belongs to another study or network, or training diverged.
        """
        if kind_of(request) == TrainRequest.kind:
            return encode(self._train(decode(request, TrainRequest)))
        return encode(self._evaluate(decode(request, EvaluateRequest)))

    def network_with(self, parameters: Parameters, round_number: int) -> Network:
        """The hospital's network holding global weights and its own personal arrays."""
        from_parameters(self._network, parameters, strict=False)
        personal = load_state(self._folder, round_number, None)
        self._network.load_state_dict(personal, strict=False)
        return self._network

    def _check(self, study: str, print_of_network: str) -> None:
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

    def _train(self, request: TrainRequest) -> Update:
        plan = request.plan
        self._check(plan.study, plan.fingerprint)
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
        )
        after = to_parameters(network)
        keep = self._study.federation.optimizer_state == "keep"
        personal = {name: torch.from_numpy(after[name]) for name in plan.personal}
        save_state(self._folder, plan.round, optimizer if keep else None, personal)
        return Update(
            hospital=self.name,
            study=plan.study,
            round=plan.round,
            fingerprint=plan.fingerprint,
            images=self.images,
            loss_sum=totals.loss_sum,
            correct=totals.correct,
            seen=totals.seen,
            seconds=totals.seconds,
            delta={
                name: value - before[name] if np.issubdtype(value.dtype, np.floating) else value
                for name, value in after.items()
                if name not in plan.personal
            },
        )

    def _evaluate(self, request: EvaluateRequest) -> Evaluation:
        self._check(request.study, request.fingerprint)
        if request.split not in self._splits:
            raise SettingsError(
                f"Hospital {self.name} has no split {request.split!r}.",
                why=f"It has {sorted(self._splits)}.",
            )
        began = time.perf_counter()
        images = self._splits[request.split]
        probabilities = predict(self.network_with(request.parameters, request.round), images)
        loss_sum, counts = evaluation_counts(probabilities, images.labels)
        return Evaluation(
            hospital=self.name,
            study=request.study,
            round=request.round,
            fingerprint=request.fingerprint,
            split=request.split,
            loss_sum=loss_sum,
            seconds=time.perf_counter() - began,
            counts=dict(counts),
        )

    def _seed(self, root: int) -> int:
        """The round's seed made the hospital's own, so that no two draw the same augmentation."""
        content = f"{root}/{self.name}".encode()
        return int.from_bytes(hashlib.sha256(content).digest()[:7], "big")
