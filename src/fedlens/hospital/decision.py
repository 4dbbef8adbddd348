"""What a hospital adds up for advice: of its own images, with the network as it was trained."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from fedlens.decision.calibration import GRID
from fedlens.decision.modality import MODALITIES, colour_histogram, colour_of
from fedlens.decision.scores import scaled
from fedlens.decision.totals import BasisTotals, DecisionTotals, ScoreTotals
from fedlens.decision.unlike import FeatureStatistics, FeatureTotals
from fedlens.errors import BadUpdateError, DataError
from fedlens.explain.batch import evaluating
from fedlens.hospital.images import HospitalImages, Rows
from fedlens.imaging.preprocess import to_input
from fedlens.models.network import Network
from fedlens.progress import Progress, silent
from fedlens.protocol.messages import AdviceBasis, AdviceScores, BasisRequest, MeasureRequest, ScoresRequest
from fedlens.study import Study

_BATCH = 32
T = TypeVar("T", bound=DecisionTotals)


@dataclass(frozen=True, eq=False)
class Outputs:
    """A network's outputs for N images.

    Attributes:
        log_p: float64 (N, C) log probabilities, uncalibrated.
        features: float32 (N, K), the last maps averaged over places.
    """

    log_p: npt.NDArray[np.float64]
    features: npt.NDArray[np.float32]


@dataclass(frozen=True)
class LocalAdvice(Generic[T]):
    """What one step came to.

    Attributes:
        totals: Sums over the hospital's images, which may leave.
        seconds: Wall time.
    """

    totals: T
    seconds: float


class Advising:
    """Adds up one hospital's images for advice, as the coordinator asks.

    Args:
        hospital: Its name.
        study: The settings every member of the study holds.
        splits: Its images by split name.
        progress: Told after every batch; what it raises ends the work.
    """

    def __init__(
        self, hospital: str, study: Study, splits: Mapping[str, HospitalImages], progress: Progress
    ) -> None:
        self._hospital = hospital
        self._study = study
        self._splits = splits
        self._progress = progress

    def basis(self, request: BasisRequest, network: Network) -> LocalAdvice[BasisTotals]:
        """First step: one pass over the training images, and one over the split that was asked for.

        Args:
            request: Of the coordinator; its weights are in ``network`` already.
            network: Its mode is the same afterwards.

        Raises:
            BadUpdateError: The study has no such step.
            DataError: The network's outputs are not finite.
        """
        self._check_wanted()
        began = time.perf_counter()
        held_out = self._splits[request.split]
        validation = image_outputs(network, held_out, step="advice basis", progress=self._progress)
        totals = basis_totals(
            network,
            self._splits["train"],
            validation,
            held_out.labels,
            step="advice basis",
            progress=self._progress,
        )
        return LocalAdvice(totals, time.perf_counter() - began)

    def scores(self, request: ScoresRequest, network: Network) -> LocalAdvice[ScoreTotals]:
        """Second step: one more pass over the split that was asked for.

        Args:
            request: Of the coordinator; its weights are in ``network`` already.
            network: Its mode is the same afterwards.

        Raises:
            BadUpdateError: The study has no such step, or no fit gives such a temperature or statistics.
            DataError: The network's outputs are not finite.
        """
        self._check_wanted()
        began = time.perf_counter()
        statistics = self._statistics(request, (network.classes, feature_count(network)))
        held_out = self._splits[request.split]
        validation = image_outputs(network, held_out, step="advice scores", progress=self._progress)
        totals = score_totals(validation, held_out.labels, request.temperature, statistics)
        return LocalAdvice(totals, time.perf_counter() - began)

    def _check_wanted(self) -> None:
        why = ""
        if not self._study.decision.federated:
            why = "Its study file says decision.federated = false."
        elif self._study.federation.strategy == "fedbn":
            why = "Under fedbn its network is not the other hospitals'."
        if why:
            raise BadUpdateError(
                f"Hospital {self._hospital} adds up nothing for advice in this study.",
                why=why,
                fix="Give every member the same study file.",
            )

    def _statistics(self, request: ScoresRequest, shape: tuple[int, int]) -> FeatureStatistics:
        """A request's statistics: crafted ones would make a histogram tell what no advice needs."""
        try:
            statistics = FeatureStatistics.from_numbers(request.statistics)
            if statistics.means.shape != shape:
                raise DataError(f"Feature means have shape {statistics.means.shape}, not {shape}.")
            if not GRID[0] <= request.temperature <= GRID[-1]:
                raise DataError(f"A temperature of {request.temperature} is beyond the grid.")
        except DataError as error:
            raise BadUpdateError(
                f"Hospital {self._hospital} refuses what the first step is said to have come to.",
                why=error.what,
                fix="Check that all members run the same version of FedLens.",
            ) from error
        return statistics


def advice_message(
    kind: type[AdviceBasis] | type[AdviceScores],
    hospital: str,
    request: MeasureRequest,
    local: LocalAdvice[Any],
) -> AdviceBasis | AdviceScores:
    """A step's totals as a message in the clear."""
    return kind(
        hospital=hospital,
        study=request.study,
        round=request.round,
        fingerprint=request.fingerprint,
        split=request.split,
        seconds=local.seconds,
        counts=local.totals.numbers(),
    )


@torch.inference_mode()
def outputs_of(network: Network, pixels: npt.NDArray[np.uint8]) -> Outputs:
    """Outputs for one batch of prepared images, uint8 (N, S, S, channels); N may not be 0.

    The network is taken as it is: it should be in evaluation mode.
    """
    device = next(network.parameters()).device
    maps = network.features(to_input(torch.from_numpy(pixels)).to(device))
    log_p = network.head(maps).double().log_softmax(1)
    return Outputs(log_p.cpu().numpy(), maps.float().mean(dim=(2, 3)).cpu().numpy())


def image_outputs(
    network: Network, images: HospitalImages, *, step: str = "", progress: Progress = silent
) -> Outputs:
    """Outputs for all images of a split; the network's mode is the same afterwards."""
    parts = []
    for rows, _, found in _batches(network, images):
        parts.append(found)
        progress(step, int(rows[-1]) + 1, len(images))
    if not parts:
        return Outputs(np.zeros((0, network.classes)), np.zeros((0, feature_count(network)), np.float32))
    return Outputs(
        np.concatenate([part.log_p for part in parts]), np.concatenate([part.features for part in parts])
    )


def feature_count(network: Network) -> int:
    """How many features the network's last maps have."""
    blank = np.zeros((1, network.image_size, network.image_size, network.channels), np.uint8)
    with evaluating(network):
        return int(outputs_of(network, blank).features.shape[1])


def basis_totals(
    network: Network,
    train: HospitalImages,
    validation: Outputs,
    labels: npt.NDArray[np.int64],
    *,
    step: str = "",
    progress: Progress = silent,
) -> BasisTotals:
    """First step: likelihoods on validation images, features and colours of training images.

    Args:
        network: As trained.
        train: The hospital's training images.
        validation: Outputs for its validation images.
        labels: int64 (N,), their classes.
        step: What progress is told.
        progress: Told after every batch.
    """
    features = FeatureTotals.zero(network.classes, validation.features.shape[1])
    colours = BasisTotals.zero(network.classes, 1).colours
    for rows, pixels, found in _batches(network, train):
        features += FeatureTotals.of(found.features, train.labels[rows], network.classes)
        kinds = [MODALITIES.index(train.records[row].modality) for row in rows]
        colours += colour_histogram(np.array([colour_of(each) for each in pixels]), np.array(kinds, np.int64))
        progress(step, int(rows[-1]) + 1, len(train))
    return BasisTotals.of(validation.log_p, labels, features, colours)


def score_totals(
    validation: Outputs, labels: npt.NDArray[np.int64], temperature: float, statistics: FeatureStatistics
) -> ScoreTotals:
    """Second step: histograms over validation images, with what the first step came to."""
    distances = statistics.distances(validation.features)
    return ScoreTotals.of(scaled(validation.log_p, temperature), labels, distances)


def _batches(
    network: Network, images: HospitalImages
) -> Iterator[tuple[Rows, npt.NDArray[np.uint8], Outputs]]:
    """Rows, their pixels and the network's outputs for them, all images of a split in order.

    The network always sees ``_BATCH`` images, filled up with some that are not counted: so an image's
    outputs do not depend, by as much as their last bit, on which others a hospital has.
    """
    for start in range(0, len(images), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(images)))
        pixels = images.take(rows)
        with evaluating(network):
            found = outputs_of(network, pixels[np.resize(np.arange(len(rows)), _BATCH)])
        yield rows, pixels, Outputs(found.log_p[: len(rows)], found.features[: len(rows)])
