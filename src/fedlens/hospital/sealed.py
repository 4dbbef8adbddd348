"""A hospital in a sealed study: it checks before it computes, and refuses before it seals."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fedlens.errors import BadUpdateError, FedLensError, ProtocolError
from fedlens.files import write_text
from fedlens.hospital.hospital import Hospital
from fedlens.hospital.sealed_counts import COUNTED
from fedlens.protocol.codec import array_digest, arrays_digest, decode, digest, encode, kind_of
from fedlens.protocol.ledger import Ledger
from fedlens.protocol.messages import (
    EnrolRequest,
    ExplanationTotals,
    KeysRequest,
    MeasureRequest,
    Parameters,
    SharesRequest,
    SumPlan,
    SurvivorsRequest,
    TrainRequest,
    UnmaskRequest,
)
from fedlens.protocol.sealed_hospital import HospitalSeal, Ready
from fedlens.protocol.session import MOST_SIGNED_BYTES
from fedlens.protocol.totals import (
    MOST_COUNTER,
    Layout,
    counter_names,
    enrol_layout,
    explain_layout,
    fixed_loss,
    train_layout,
    value_names,
)
from fedlens.protocol.vectors import Values, check_sizes

LEDGER_NAME = "sealed.json"
LOG_NAME = "hospital.jsonl"


class SealedHospital:
    """Answers sealed requests only; every refusal stands in the hospital's own log with its reason.

    Args:
        hospital: Trains and measures.
        seal: Its side of the sealed sums.
        folder: For the ledger and the log, on the hospital's premises.
    """

    def __init__(self, hospital: Hospital, seal: HospitalSeal, folder: Path) -> None:
        self._hospital = hospital
        self._seal = seal
        self._folder = folder
        self._written = seal.ledger
        template = hospital.shared_arrays(hospital.personal_names)
        self._sizes = [template[name].size for name in value_names(template)]
        self._layout = train_layout(template)
        self._trained_names = hospital.trained_names

    @property
    def name(self) -> str:
        """As the roster spells it."""
        return self._hospital.name

    def handle(self, request: bytes, own: bytes = b"") -> bytes:
        """Answer one message of the coordinator.

        Raises:
            FedLensError: It is refused, or training failed; the log says why.
        """
        try:
            return self._answer(request, own)
        except FedLensError as error:
            self._log({"refused": str(error)})
            raise
        finally:
            # On disk before any answer leaves: who is killed in between must not open a sum twice.
            if self._seal.ledger is not self._written:
                write_text(self._folder / LEDGER_NAME, self._seal.ledger.to_json())
                self._written = self._seal.ledger

    def _answer(self, request: bytes, own: bytes) -> bytes:
        kind = kind_of(request)
        answers = {
            KeysRequest.kind: self._seal.keys,
            SharesRequest.kind: self._seal.shares,
            SurvivorsRequest.kind: self._seal.co_sign,
            UnmaskRequest.kind: self._seal.unmask,
        }
        if kind in answers:
            return answers[kind](request)
        if kind == TrainRequest.kind:
            return self._train(decode(request, TrainRequest), own)
        if kind in COUNTED:
            return self._counted(kind, request, own)
        if kind == ExplanationTotals.kind:
            return self._note(request)
        return self._enrol(decode(request, EnrolRequest), own)

    def _enrol(self, request: EnrolRequest, own: bytes) -> bytes:
        ready = self._verify(request, own, "enrol", 0)
        self._hospital.check(request.study, request.fingerprint)
        counts = {"images": self._hospital.images, "validation": self._hospital.validation_images}
        return self._sealed(ready, Values(), counts, enrol_layout(), counts)

    def _train(self, request: TrainRequest, own: bytes) -> bytes:
        plan = request.plan
        ready = self._verify(request, own, "train", plan.round)
        check_sizes(ready.plan, self._sizes, self._layout)
        with self._one_answer(ready):
            return self._sealed_update(request, ready)

    def _sealed_update(self, request: TrainRequest, ready: Ready) -> bytes:
        plan = request.plan
        trained = self._hospital.train(request)
        self._check_change(trained.delta, ready.plan)
        names, totals, images = value_names(trained.delta), trained.totals, trained.weight
        numbers: dict[str, Any] = {
            "images": images,
            "seen": totals.seen,
            "correct": totals.correct,
            "loss": fixed_loss(totals.loss_sum),
            "milliseconds": round(1000 * totals.seconds),
        }
        for name in counter_names(trained.delta):
            numbers[f"counters/{name}"] = trained.delta[name] * images
        seed = hashlib.sha256(f"{plan.seed}/{self.name}/{plan.round}".encode()).digest()
        weight = images / max(1, ready.plan.images)
        said = {
            "images": images,
            "loss": totals.loss_sum / totals.seen,
            "accuracy": totals.correct / totals.seen,
        }
        values = Values(trained.delta, names, weight, seed)
        return self._sealed(ready, values, numbers, self._layout, said)

    def _counted(self, kind: str, content: bytes, own: bytes) -> bytes:
        """Counts on held-out images, sealed."""
        step = COUNTED[kind]
        request = decode(content, step.request)
        ready = self._verify(request, own, step.name, request.round)
        with self._one_answer(ready):
            counted = step.count(self._hospital, request)
            return self._sealed(ready, Values(), counted.numbers, counted.layout, counted.said)

    def _note(self, request: bytes) -> bytes:
        numbers = explain_layout(self._hospital.classes).size
        told = self._seal.from_coordinator(request, ExplanationTotals, most=MOST_SIGNED_BYTES + 8 * numbers)
        return encode(self._hospital.note(told))

    def _verify(
        self, request: TrainRequest | MeasureRequest | EnrolRequest, own: bytes, step: str, round_number: int
    ) -> Ready:
        """Everything about the seal, before a single image is looked at."""
        if not request.seal:
            raise ProtocolError(
                f"Hospital {self.name} was asked for its numbers in the clear.",
                why="This study is sealed.",
                fix="Give every member the same study file.",
            )
        weights: Parameters = {}
        # Hashed once for both digests: these are all the bytes of a network.
        known: dict[str, str] = {}
        if not isinstance(request, EnrolRequest):
            known = {name: array_digest(array) for name, array in request.parameters.items()}
            self._check_weights(request.parameters)
            personal = self._hospital.personal_names
            weights = {
                name: array
                for name, array in request.parameters.items()
                if array.dtype == np.float32 and name not in personal
            }
        named = {f"parameters/{name}": text for name, text in known.items()}
        task = digest(request, without="seal", known=named)
        ready = self._seal.verify(request.seal, own, task=task, model=arrays_digest(weights, known))
        wanted = self._hospital.norm_bound
        if step == "train" and wanted and ready.plan.norm_bound != wanted:
            raise ProtocolError(
                f"The plan bounds an update's norm by {ready.plan.norm_bound}.",
                why=f"The study says sealing.norm_bound = {wanted}.",
            )
        stamp = ready.plan.stamp
        if (stamp.step, stamp.round) != (step, round_number):
            raise ProtocolError(
                f"The seal is of {stamp.step} {stamp.round}, the request of {step} {round_number}."
            )
        return ready

    @contextlib.contextmanager
    def _one_answer(self, ready: Ready) -> Iterator[None]:
        """A sum gets one answer of this hospital, a refusal for whatever reason included."""
        try:
            yield
        except FedLensError:
            self._seal.abandon(ready)
            raise

    def _check_weights(self, parameters: Parameters) -> None:
        """What comes must be fit to train from: else the refusal that follows would tell of this hospital."""
        for name, array in parameters.items():
            floating = array.dtype == np.float32
            if not (np.isfinite(array).all() if floating else ((array >= 0) & (array < MOST_COUNTER)).all()):
                raise ProtocolError(f"The request's array {name} holds values out of range.")

    def _check_change(self, delta: Parameters, plan: SumPlan) -> None:
        """What a mask hides nobody else can check: refuse to seal a change that would spoil the sum."""
        squares = 0.0
        for name in value_names(delta):
            flat = delta[name].ravel()
            if not np.isfinite(flat).all():
                raise BadUpdateError(
                    f"Hospital {self.name} does not seal its update: {name} is not finite everywhere.",
                    fix="Lower training.learning_rate, or set training.warmup.",
                )
            if name in self._trained_names:
                squares += float(np.dot(flat, flat))
        norm = squares**0.5
        if norm > plan.norm_bound:
            # The norm itself stays at home: an error's text travels.
            self._log({"norm": norm, "norm_bound": plan.norm_bound}, plan)
            raise BadUpdateError(
                f"Hospital {self.name} does not seal its update: its norm is beyond the plan's bound.",
                why="Training has probably diverged here; the hospital's own log has the figures.",
                fix="Look at this hospital's images and labels, or set sealing.norm_bound.",
            )

    def _sealed(
        self, ready: Ready, values: Values, numbers: dict[str, Any], layout: Layout, said: dict[str, Any]
    ) -> bytes:
        began = time.perf_counter()
        upload, encoded = self._seal.seal(ready, values, numbers, layout)
        seconds = time.perf_counter() - began
        self._log({**said, "saturated": encoded.saturated, "seconds": seconds}, ready.plan)
        return encode(dataclasses.replace(upload, sealing_seconds=seconds))

    def _log(self, said: dict[str, Any], plan: SumPlan | None = None) -> None:
        where = (
            {"round": plan.stamp.round, "step": plan.stamp.step, "segment": plan.stamp.segment}
            if plan
            else {}
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / LOG_NAME).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({**where, **said}) + "\n")


def load_ledger(folder: Path, study: str) -> Ledger:
    """The ledger that this hospital kept of a study; a new one where there is none.

    Raises:
        ProtocolError: It cannot be read.
    """
    path = folder / LEDGER_NAME
    return Ledger.from_json(path.read_text()) if path.is_file() else Ledger(study)
