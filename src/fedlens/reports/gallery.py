"""Right and wrong decisions side by side with their saliency maps.

Cases are drawn at random among the right and among the wrong ones: a gallery of hand-picked maps
would say nothing about the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fedlens.reports.predictions import Predictions


@dataclass(frozen=True)
class Case:
    """One test image to be explained.

    Attributes:
        index: Row in the predictions.
        probability: Of the predicted class, 0..1.
    """

    index: int
    image_id: str
    hospital: str
    source: str
    true: str
    predicted: str
    probability: float

    @property
    def right(self) -> bool:
        """Whether the predicted class is the true one."""
        return self.true == self.predicted


@dataclass(frozen=True)
class GalleryItem:
    """One explained test image.

    Attributes:
        image_png: The image as the reader knows it, PNG bytes.
        overlay_png: The same with the saliency map (and the expert outline, if there is one) on it.
        true: True class.
        predicted: Most probable class.
        probability: Its probability, 0..1.
        hospital: Owner of the image.
        source: Data set.
        image_id: As in the manifest.
        right: Whether predicted is true.
        outlined: The overlay shows an expert's outline.
        inside: Share of the map's heat inside that outline, 0..1; None where there is none.
    """

    image_png: bytes
    overlay_png: bytes
    true: str
    predicted: str
    probability: float
    hospital: str
    source: str
    image_id: str
    right: bool
    outlined: bool = False
    inside: float | None = None


def choose_cases(
    predictions: Predictions, *, right: int = 3, wrong: int = 3, seed: int = 0
) -> tuple[Case, ...]:
    """Draw right and wrong cases of every source; fewer where a source has fewer."""
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    for source in np.unique(predictions.sources):
        for outcome, count in ((True, right), (False, wrong)):
            rows = np.flatnonzero((predictions.sources == source) & (predictions.right == outcome))
            chosen.extend(rng.permutation(rows)[:count].tolist())
    predicted = predictions.predicted
    return tuple(
        Case(
            index=row,
            image_id=str(predictions.image_ids[row]),
            hospital=str(predictions.hospitals[row]),
            source=str(predictions.sources[row]),
            true=predictions.classes[predictions.true[row]],
            predicted=predictions.classes[predicted[row]],
            probability=float(predictions.probabilities[row, predicted[row]]),
        )
        for row in chosen
    )


def gallery_item(
    case: Case,
    image: npt.NDArray[np.uint8],
    overlay: npt.NDArray[np.uint8],
    *,
    outlined: bool = False,
    inside: float | None = None,
    side: int = 256,
) -> GalleryItem:
    """Encode one explained image for the report.

    Args:
        case: The decision.
        image: (H, W) grey or (H, W, 3) RGB uint8.
        overlay: (H, W, 3) RGB uint8, the image with its saliency map.
        outlined: The overlay shows the expert's outline, too.
        inside: Share of the map's heat inside that outline, 0..1.
        side: Longer side of the pictures in the report, pixels; smaller images keep their size.
    """
    return GalleryItem(
        image_png=encode_png(image, side),
        overlay_png=encode_png(overlay, side),
        true=case.true,
        predicted=case.predicted,
        probability=case.probability,
        hospital=case.hospital,
        source=case.source,
        image_id=case.image_id,
        right=case.right,
        outlined=outlined,
        inside=inside,
    )


def encode_png(image: npt.NDArray[np.uint8], side: int) -> bytes:
    """PNG bytes of a grey or RGB image, shrunk so that its longer side is at most ``side`` pixels."""
    scale = side / max(image.shape[:2])
    if scale < 1:
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        resized: npt.NDArray[Any] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        image = resized.astype(np.uint8)
    if image.ndim == 3:
        image = np.ascontiguousarray(image[..., ::-1])
    return cv2.imencode(".png", image)[1].tobytes()


def by_source(
    items: Sequence[GalleryItem],
) -> tuple[tuple[str, tuple[GalleryItem, ...], tuple[GalleryItem, ...]], ...]:
    """For each source its right and its wrong cases."""
    return tuple(
        (
            source,
            tuple(item for item in items if item.source == source and item.right),
            tuple(item for item in items if item.source == source and not item.right),
        )
        for source in sorted({item.source for item in items})
    )
