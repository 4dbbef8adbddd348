"""Predictions and counts on a hospital's own held-out images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from fedlens.hospital.images import HospitalImages
from fedlens.imaging.preprocess import to_input
from fedlens.metrics import confusion_matrix, score_histograms
from fedlens.models.network import Network

_BATCH = 64


@torch.inference_mode()
def predict(network: Network, images: HospitalImages) -> npt.NDArray[np.float32]:
    """Softmax probabilities, (n, classes), in float32 whatever precision training used.

    The network's train or eval mode is the same afterwards.
    """
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    try:
        parts = []
        for start in range(0, len(images), _BATCH):
            indices = np.arange(start, min(start + _BATCH, len(images)))
            inputs = to_input(torch.from_numpy(images.take(indices))).to(device)
            parts.append(network(inputs).float().softmax(1).cpu().numpy())
    finally:
        network.train(was_training)
    return np.concatenate(parts) if parts else np.zeros((0, network.classes), np.float32)


def evaluation_counts(
    probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> tuple[float, dict[str, npt.NDArray[np.int64]]]:
    """Sum of cross entropy, and the count arrays of :class:`fedlens.protocol.messages.Evaluation`."""
    classes = probabilities.shape[1]
    confusion = confusion_matrix(labels, probabilities.argmax(1), classes)
    positives, negatives = score_histograms(labels, probabilities, classes)
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    loss_sum = float(-np.log(np.maximum(chosen, 1e-12)).sum())
    return loss_sum, {"confusion": confusion, "positives": positives, "negatives": negatives}
