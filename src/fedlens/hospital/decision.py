"""What a hospital adds up for advice: of its own images, with the network as it was trained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fedlens.decision.bundle import Basis
from fedlens.decision.modality import MODALITIES, colour_histogram, colour_of
from fedlens.decision.scores import scaled
from fedlens.decision.totals import BasisTotals, ScoreTotals
from fedlens.decision.unlike import FeatureTotals
from fedlens.explain.batch import evaluating
from fedlens.hospital.images import HospitalImages
from fedlens.imaging.preprocess import to_input
from fedlens.models.network import Network
from fedlens.progress import Progress, silent

_BATCH = 64


@dataclass(frozen=True, eq=False)
class Outputs:
    """A network's outputs for N images.

    Attributes:
        log_p: float64 (N, C) log probabilities, uncalibrated.
        features: float32 (N, K), the last maps averaged over places.
    """

    log_p: npt.NDArray[np.float64]
    features: npt.NDArray[np.float32]


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
    with evaluating(network):
        for start in range(0, len(images), _BATCH):
            rows = np.arange(start, min(start + _BATCH, len(images)))
            parts.append(outputs_of(network, images.take(rows)))
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
    with evaluating(network):
        for start in range(0, len(train), _BATCH):
            rows = np.arange(start, min(start + _BATCH, len(train)))
            pixels = train.take(rows)
            found = outputs_of(network, pixels)
            features += FeatureTotals.of(found.features, train.labels[rows], network.classes)
            kinds = [MODALITIES.index(train.records[row].modality) for row in rows]
            colours += colour_histogram(
                np.array([colour_of(each) for each in pixels]), np.array(kinds, np.int64)
            )
            progress(step, int(rows[-1]) + 1, len(train))
    return BasisTotals.of(validation.log_p, labels, features, colours)


def score_totals(validation: Outputs, labels: npt.NDArray[np.int64], basis: Basis) -> ScoreTotals:
    """Second step: histograms over validation images, with what the first step came to."""
    distances = basis.statistics.distances(validation.features)
    return ScoreTotals.of(scaled(validation.log_p, basis.temperature), labels, distances)
