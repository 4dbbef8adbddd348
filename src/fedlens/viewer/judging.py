"""One network in one thread of its own, for any thread that wants something of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from fedlens.errors import FedLensError
from fedlens.explain.saliency import SaliencyMap
from fedlens.image_loading import GivenImage
from fedlens.predictor import Found, Prediction, Predictor, Ready

_log = logging.getLogger(__name__)


class Judge:
    """A predictor whose requests are served in the order in which they come; any thread may call it.

    Args:
        predictor: Used by nobody else.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="viewer-network")

    def close(self) -> None:
        """End after the request that is being served; later ones are refused."""
        self._thread.shutdown(cancel_futures=True)

    def judge(self, images: Sequence[Ready | Prediction], *, maps: bool = False) -> list[Found]:
        """As :meth:`Predictor.judge`; an image that makes it fail gets a problem, and spoils no other one."""
        future = self._thread.submit(self._predictor.judge, images, maps=maps)
        if future.exception() is None:
            return [_finite(found) for found in future.result()]
        if len(images) > 1:
            return [found for image in images for found in self.judge([image], maps=maps)]
        name = images[0].name if isinstance(images[0], Ready) else images[0].file
        return [Found(failed(future, name))]

    def explain(
        self, image: GivenImage, pixels: npt.NDArray[np.uint8], *, method: str, label: str
    ) -> SaliencyMap:
        """As :meth:`Predictor.explain`, of one image prepared as uint8 (S, S, channels)."""
        future = self._thread.submit(
            self._predictor.explain, [image], pixels[None], method=method, label=label
        )
        return future.result()[0]


def failed(future: Future[Any], name: str) -> Prediction:
    """What is said of an image after work at it failed in a way that nobody foresaw.

    Args:
        future: The work.
        name: What results call the image; not logged, as it may name a patient.
    """
    error = future.exception()
    kind = type(error).__name__
    _log.warning("An image could not be judged: %s", kind)
    said = error.what if isinstance(error, FedLensError) else f"it makes this program fail ({kind})"
    return Prediction(name, problem=said.rstrip("."))


def _finite(found: Found) -> Found:
    if all(math.isfinite(chance) for _, chance in found.prediction.probabilities):
        return found
    return Found(Prediction(found.prediction.file, problem="the network's outputs for it are not finite"))
