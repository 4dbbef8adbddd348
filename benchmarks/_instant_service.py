"""A hospital's service whose training takes no time: all else of a round is what it is.

Run by deployment.py in place of ``fedlens.deployment.service``, as: KIT TIMES PARAMETERS. It notes in the
file TIMES when each round's request to train came.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection
from pathlib import Path

import numpy as np

from fedlens.deployment.kit import open_kit
from fedlens.deployment.membership import Membership, _Joined
from fedlens.deployment.service import serve
from fedlens.hospital.hospital import Hospital, LocalEvaluation, LocalTraining
from fedlens.hospital.training import TrainingTotals
from fedlens.protocol.messages import EvaluateRequest, JoinRequest, Parameters, TrainRequest
from fedlens.protocol.totals import AUROC_BINS
from fedlens.study import Study

ARRAYS = 8


def start_parameters(count: int) -> Parameters:
    """``count`` weights in a few float32 arrays."""
    return {f"layer{number}.weight": np.zeros(count // ARRAYS, np.float32) for number in range(ARRAYS)}


class InstantHospital(Hospital):
    """Answers training with the same small random update every round."""

    def __init__(self, name: str, study: Study, parameters: int, times: Path) -> None:
        self.name = name
        self._study = study
        self._times = times
        rng = np.random.default_rng(len(name))
        self._delta = {
            key: rng.normal(0, 1e-3, array.shape).astype(np.float32)
            for key, array in start_parameters(parameters).items()
        }

    @property
    def images(self) -> int:
        return 100

    @property
    def validation_images(self) -> int:
        return 20

    @property
    def trained_names(self) -> frozenset[str]:
        return frozenset(self._delta)

    @property
    def classes(self) -> int:
        return len(self._study.data.classes)

    @property
    def personal_names(self) -> frozenset[str]:
        return frozenset()

    def shared_arrays(self, personal: Collection[str]) -> Parameters:
        return self._delta

    def check(self, study: str, print_of_network: str) -> None:
        """Any network will do."""

    def train(self, request: TrainRequest) -> LocalTraining:
        with self._times.open("a") as stream:
            stream.write(f"{time.time()}\n")
        return LocalTraining(self._delta, TrainingTotals(50.0, 60, 100, 0.0), self.images)

    def measure(self, request: EvaluateRequest) -> LocalEvaluation:
        confusion = np.diag(np.full(self.classes, 10, np.int64))
        positives = np.zeros((self.classes, AUROC_BINS), np.int64)
        positives[:, -1] = 10
        negatives = np.zeros((self.classes, AUROC_BINS), np.int64)
        negatives[:, 0] = 10 * (self.classes - 1)
        counts = {"confusion": confusion, "positives": positives, "negatives": negatives}
        return LocalEvaluation(1.0, counts, 0.0)


class InstantMembership(Membership):
    """Joins without an image."""

    def __init__(self, kit: Path, times: Path, parameters: int) -> None:
        opened = open_kit(kit, "hospital")
        super().__init__(opened, kit)
        self._name = opened.name
        self._times = times
        self._parameters = parameters

    def _prepared(self, study: Study, request: JoinRequest) -> _Joined:
        return _Joined(study, InstantHospital(self._name, study, self._parameters, self._times), None)


if __name__ == "__main__":
    folder, times, count = sys.argv[1:]
    serve(open_kit(Path(folder), "hospital"), InstantMembership(Path(folder), Path(times), int(count)).answer)
