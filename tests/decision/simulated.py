"""Made-up outputs of a network that is calibrated by construction, at a chosen temperature."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax


def outputs(
    images: int, classes: int = 4, *, sharpness: float = 2.0, temperature: float = 1.0, seed: int = 0
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Log probabilities and labels drawn from them; at ``temperature`` the probabilities are true."""
    rng = np.random.default_rng(seed)
    true = log_softmax(rng.normal(0, sharpness, (images, classes)), axis=1)
    labels = (np.cumsum(np.exp(true), axis=1) < rng.random((images, 1))).sum(1).clip(0, classes - 1)
    return log_softmax(true * temperature, axis=1), labels.astype(np.int64)
