"""Hospitals without images: numpy only, deterministic, with state of their own on disk."""

from __future__ import annotations

import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from fedlens.coordinator.settings import CoordinatorSettings
from fedlens.engines.local import LocalEngine
from fedlens.errors import BadUpdateError
from fedlens.files import write_bytes
from fedlens.metrics.explanation_totals import QualityTotals
from fedlens.protocol.codec import decode, encode, kind_of
from fedlens.protocol.messages import (
    EvaluateRequest,
    Evaluation,
    ExplainRequest,
    Explanation,
    ExplanationTotals,
    Noted,
    Parameters,
    TrainRequest,
    Update,
)
from fedlens.study import ExplanationSettings, FederationSettings, TrainingSettings

CLASSES = ("normal", "ill")
NORM_NAMES = frozenset({"norm.weight", "norm.running_var", "norm.count"})
BUFFER_NAMES = frozenset({"norm.running_var", "norm.count"})


def initial_parameters() -> Parameters:
    rng = np.random.default_rng(7)
    return {
        "conv.weight": rng.normal(size=(3, 2)).astype(np.float32),
        "norm.weight": np.ones(2, np.float32),
        "norm.running_var": np.ones(2, np.float32),
        "norm.count": np.array(0, np.int64),
    }


def make_settings(
    *, training: dict[str, Any] | None = None, explanation: dict[str, Any] | None = None, **federation: Any
) -> CoordinatorSettings:
    return CoordinatorSettings(
        study="5" * 64,
        seed=3,
        fingerprint="f" * 64,
        classes=CLASSES,
        training=TrainingSettings(passes=10, learning_rate=0.1, **(training or {})),
        federation=FederationSettings(**{"rounds": 5, **federation}),
        explanation=ExplanationSettings(**{"measures": "none", **(explanation or {})}),
        norm_names=NORM_NAMES,
        buffer_names=BUFFER_NAMES,
    )


class FakeHospital:
    """Pulls the weights towards a target of its own, with momentum that is kept at home."""

    def __init__(self, name: str, images: int, folder: Path | None = None, delay: float = 0.0) -> None:
        self.name = name
        self.images = images
        self.requests: list[TrainRequest | EvaluateRequest | ExplainRequest] = []
        self.told: list[ExplanationTotals] = []
        self._folder = folder
        self._delay = delay
        self._states: dict[int, Parameters] = {}
        self._target = np.random.default_rng(zlib.crc32(name.encode())).normal()

    def handle(self, request: bytes, own: bytes = b"") -> bytes:
        time.sleep(self._delay)
        if kind_of(request) == TrainRequest.kind:
            return encode(self.train(decode(request, TrainRequest)))
        if kind_of(request) == ExplainRequest.kind:
            return encode(self.explain(decode(request, ExplainRequest)))
        if kind_of(request) == ExplanationTotals.kind:
            return encode(self.note(decode(request, ExplanationTotals)))
        return encode(self.evaluate(decode(request, EvaluateRequest)))

    def train(self, request: TrainRequest) -> Update:
        self.requests.append(request)
        plan = request.plan
        own = self.load(plan.round - 1)
        noise = np.random.default_rng((plan.seed, plan.round, len(self.name)))
        delta: Parameters = {}
        for name, array in request.parameters.items():
            if name in plan.personal:
                continue
            if array.dtype == np.int64:
                delta[name] = np.asarray(array + self.images)
                continue
            pull = plan.learning_rate_start * plan.passes * (self._target - array) * 0.2
            velocity = (
                0.5 * own.get(name, np.zeros_like(array)) + pull + 0.01 * noise.normal(size=array.shape)
            )
            delta[name] = velocity.astype(np.float32)
        self.save(plan.round, delta)
        return Update(
            hospital=self.name,
            study=plan.study,
            round=plan.round,
            fingerprint=plan.fingerprint,
            images=self.images,
            loss_sum=float(self.distance(request.parameters) * self.images),
            correct=self.images // 2,
            seen=self.images,
            seconds=time.perf_counter() % 1,
            delta=delta,
        )

    def evaluate(self, request: EvaluateRequest) -> Evaluation:
        self.requests.append(request)
        distance = self.distance(request.parameters)
        right = 10 - min(9, int(distance))
        confusion = np.array([[right, 10 - right], [2, 8]], np.int64)
        positives = np.zeros((2, 4), np.int64)
        positives[:, 3] = 10
        return Evaluation(
            hospital=self.name,
            study=request.study,
            round=request.round,
            fingerprint=request.fingerprint,
            split=request.split,
            loss_sum=20 * distance,
            seconds=time.perf_counter() % 1,
            counts={"confusion": confusion, "positives": positives, "negatives": positives[:, ::-1].copy()},
        )

    def explain(self, request: ExplainRequest) -> Explanation:
        """Maps that follow from the weights, of ten images a class."""
        self.requests.append(request)
        return Explanation(
            hospital=self.name,
            study=request.study,
            round=request.round,
            fingerprint=request.fingerprint,
            split=request.split,
            seconds=time.perf_counter() % 1,
            counts=self.maps(request.parameters).numbers(),
        )

    def maps(self, parameters: Parameters) -> QualityTotals:
        found = min(1.0, self.distance(parameters))
        labels = np.repeat([0, 1], 10)
        values = {"energy": found, "area": 0.25, "empty": 0.0, "strays": 1.0, "cost": time.perf_counter() % 1}
        return QualityTotals.of({name: np.full(20, value) for name, value in values.items()}, labels, 2)

    def note(self, told: ExplanationTotals) -> Noted:
        self.told.append(told)
        return Noted(self.name, told.study, told.round)

    def distance(self, parameters: Parameters) -> float:
        return float(np.square(parameters["conv.weight"] - self._target, dtype=np.float64).mean())

    def load(self, round_number: int) -> Parameters:
        if self._folder is None:
            return self._states.get(round_number, {})
        path = self._folder / f"state-{round_number}"
        return load_file(path) if path.exists() else {}

    def save(self, round_number: int, state: Parameters) -> None:
        if self._folder is None:
            self._states[round_number] = state
        else:
            write_bytes(self._folder / f"state-{round_number}", save(state))


class LyingHospital(FakeHospital):
    """Sends what a function makes of its honest update, from a given round on."""

    def __init__(self, name: str, images: int, lie: Any, since: int = 1) -> None:
        super().__init__(name, images)
        self._lie = lie
        self._since = since

    def handle(self, request: bytes, own: bytes = b"") -> bytes:
        if kind_of(request) == TrainRequest.kind:
            asked = decode(request, TrainRequest)
            if asked.plan.round >= self._since:
                told = self._lie(self.train(asked))
                return told if isinstance(told, bytes) else encode(told)
        return super().handle(request, own)


class FailingHospital(FakeHospital):
    """Fails at training in the given rounds."""

    def __init__(self, name: str, images: int, rounds: tuple[int, ...]) -> None:
        super().__init__(name, images)
        self._rounds = rounds

    def train(self, request: TrainRequest) -> Update:
        if request.plan.round in self._rounds:
            raise BadUpdateError("The training loss is no longer finite.")
        return super().train(request)


def make_engine(folder: Path | None = None, delay: float = 0.0, hospitals: str = "ABCD") -> LocalEngine:
    return LocalEngine(
        FakeHospital(name, 30 + 17 * index, folder and folder / name, delay)
        for index, name in enumerate(hospitals)
    )
