"""Decisions side by side with their saliency maps: right, wrong, uncertain, and straying ones.

Cases are drawn at random among the right, the wrong and those whose map strays: a gallery of hand-picked
maps would say nothing about the network. Uncertain are those with the least margin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from fedlens.reports.predictions import Predictions

Kind = Literal["right", "wrong", "uncertain", "straying"]
OVERLAY_SIDE = 256
"""Longer side of pictures in the report, pixels."""

KINDS: tuple[Kind, ...] = ("right", "wrong", "uncertain", "straying")


@dataclass(frozen=True)
class Case:
    """One test image to be explained.

    Attributes:
        kind: What it was chosen as; an image is shown once, though it may be several of these.
        index: Row in the predictions.
        probability: Of the predicted class, 0..1.
        next_class: The second most probable class.
        next_probability: Its probability, 0..1.
    """

    kind: Kind
    index: int
    image_id: str
    hospital: str
    source: str
    true: str
    predicted: str
    probability: float
    next_class: str
    next_probability: float

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
        case: The decision.
        outlined: The overlay shows an expert's outline.
        inside: Share of the map's heat inside that outline, 0..1; None where there is none.
        why: Where the map strays to, in words; empty where it does not.
        other_png: The image with the map of another arm's network; empty where none is shown.
        other: That arm and its decision, in words.
    """

    image_png: bytes
    overlay_png: bytes
    case: Case
    outlined: bool = False
    inside: float | None = None
    why: str = ""
    other_png: bytes = b""
    other: str = ""


def choose_cases(
    predictions: Predictions,
    *,
    straying: npt.NDArray[np.bool_] | None = None,
    each: int = 2,
    seed: int = 0,
) -> tuple[Case, ...]:
    """Choose cases of every kind in every source; fewer where a source has fewer.

    Args:
        predictions: Of N images.
        straying: (N,) whether an image's map strays; None where that was not measured.
        each: Cases of a kind in a source.
        seed: Of the draw.
    """
    rng = np.random.default_rng(seed)
    margins = _ranked(predictions)[2]
    chosen: list[tuple[Kind, int]] = []
    for source in np.unique(predictions.sources):
        here = rng.permutation(np.flatnonzero(predictions.sources == source))
        found: dict[Kind, npt.NDArray[np.intp]] = {
            "right": here[predictions.right[here]],
            "wrong": here[~predictions.right[here]],
            "straying": here[straying[here]] if straying is not None else here[:0],
            "uncertain": here[np.argsort(margins[here], kind="stable")],
        }
        taken: set[int] = set()
        picked: dict[Kind, list[int]] = {}
        for kind, rows in found.items():
            picked[kind] = [row for row in rows.tolist() if row not in taken][:each]
            taken.update(picked[kind])
        chosen += [(kind, row) for kind in KINDS for row in picked[kind]]
    return tuple(_case(predictions, kind, row) for kind, row in chosen)


def _ranked(
    predictions: Predictions,
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """The two most probable classes of each image, (N,) each, and how far their probabilities are apart."""
    order = np.argsort(-predictions.probabilities, axis=1, kind="stable")
    ordered = np.take_along_axis(predictions.probabilities, order, axis=1)
    return order[:, 0], order[:, 1], ordered[:, 0] - ordered[:, 1]


def _case(predictions: Predictions, kind: Kind, row: int) -> Case:
    first, second, _ = _ranked(predictions.take(np.array([row])))
    probabilities = predictions.probabilities[row]
    return Case(
        kind=kind,
        index=row,
        image_id=str(predictions.image_ids[row]),
        hospital=str(predictions.hospitals[row]),
        source=str(predictions.sources[row]),
        true=predictions.classes[predictions.true[row]],
        predicted=predictions.classes[first[0]],
        probability=float(probabilities[first[0]]),
        next_class=predictions.classes[second[0]],
        next_probability=float(probabilities[second[0]]),
    )


def gallery_item(
    case: Case,
    image: npt.NDArray[np.uint8],
    overlay: npt.NDArray[np.uint8],
    *,
    outlined: bool = False,
    inside: float | None = None,
    why: str = "",
    side: int = OVERLAY_SIDE,
) -> GalleryItem:
    """Encode one explained image for the report.

    Args:
        case: The decision.
        image: (H, W) grey or (H, W, 3) RGB uint8.
        overlay: (H, W, 3) RGB uint8, the image with its saliency map.
        outlined: The overlay shows the expert's outline, too.
        inside: Share of the map's heat inside that outline, 0..1.
        why: Where the map strays to, in words.
        side: Longer side of the pictures in the report, pixels; smaller images keep their size.
    """
    return GalleryItem(encode_png(image, side), encode_png(overlay, side), case, outlined, inside, why)


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
) -> tuple[tuple[str, tuple[tuple[Kind, tuple[GalleryItem, ...]], ...]], ...]:
    """For each source its cases of each kind that it has any of; right and wrong ones always."""
    grouped = []
    for source in sorted({item.case.source for item in items}):
        kinds = []
        for kind in KINDS:
            cases = tuple(item for item in items if (item.case.source, item.case.kind) == (source, kind))
            if cases or kind in ("right", "wrong"):
                kinds.append((kind, cases))
        grouped.append((source, tuple(kinds)))
    return tuple(grouped)
