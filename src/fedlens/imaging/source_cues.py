"""Source cues: classes that can be told apart without looking at the anatomy.

Where one class came from another scanner, archive or hand than the rest, its files differ in size,
brightness or border, and a network learns that instead of the disease. Each cue of the scan is tried
alone, and all of them together, as a one-against-rest score: the share of the class among images with
a similar cue (sixteenths of the range), learnt on one half of the clusters and judged on the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedlens.imaging.manifest import Manifest
from fedlens.imaging.scan import CUES
from fedlens.metrics import auroc

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

TELLING_AUROC = 0.85
"""A class that cues tell from the rest at least this well is reported."""

TOGETHER = "all cues together"
_BINS = 16
_FEWEST_IMAGES = 20


@dataclass(frozen=True)
class CueScore:
    """How well one cue tells one class from the others of its modality.

    Attributes:
        modality: Only images of this modality were compared.
        label: The class.
        rest: What it is told from: the other class, or ``the other mri classes``.
        cue: One of ``scan.CUES``, or ``TOGETHER``.
        auroc: 0.5 for no better than chance, 1 for always; mean over both halves.
        images: Images of the class.
        median: Median of the cue within the class; None for all cues together.
        median_rest: Median of the cue over the other classes; None for all cues together.
    """

    modality: str
    label: str
    rest: str
    cue: str
    auroc: float
    images: int
    median: float | None
    median_rest: float | None

    @property
    def telling(self) -> bool:
        """Whether the class can be told from the rest by this cue."""
        return self.auroc >= TELLING_AUROC

    def sentence(self) -> str:
        """The finding in words."""
        text = (
            f"{self.label} can be told from {self.rest} by "
            f"{self.cue if self.cue == TOGETHER else self.cue + ' alone'} (AUROC {self.auroc:.2f}"
        )
        if self.median is None or self.median_rest is None:
            return text + ")"
        return f"{text}; median {self.median:.5g} against {self.median_rest:.5g})"


def source_cues(manifest: Manifest, cues: Floats, clusters: Indices) -> tuple[CueScore, ...]:
    """Score every cue for every class, best first.

    Args:
        manifest: N images.
        cues: float64 (N, 9), the columns of ``scan.CUES``.
        clusters: int64 (N,); images of one cluster are never on both sides of the judgement.

    Returns:
        Scores of the classes with at least 20 images, within each modality that has two such classes;
        of just two classes the first one's, as the other's are the same.
    """
    modality = np.array([record.modality for record in manifest], str)
    label = np.array([record.label for record in manifest], str)
    scores: list[CueScore] = []
    for name in sorted(set(modality.tolist())):
        inside = np.flatnonzero(modality == name)
        names, counts = np.unique(label[inside], return_counts=True)
        inside = inside[np.isin(label[inside], names[counts >= _FEWEST_IMAGES])]
        if len(set(label[inside].tolist())) > 1:
            scores += _score(name, label[inside], cues[inside], clusters[inside])
    return tuple(sorted(scores, key=lambda score: (-score.auroc, score.label, score.cue)))


def _score(
    modality: str, labels: npt.NDArray[np.str_], cues: Floats, clusters: Indices
) -> Iterator[CueScore]:
    names, true = np.unique(labels, return_inverse=True)
    halves = np.random.default_rng(0).integers(0, 2, clusters.max() + 1)[clusters]
    odds = np.stack([_log_odds(column, true, halves, len(names)) for column in cues.T])
    for cue, scores in (*zip(CUES, odds, strict=True), (TOGETHER, odds.sum(axis=0))):
        by_half = np.stack([auroc(true[halves == half], scores[halves == half]) for half in (0, 1)])
        column = None if cue == TOGETHER else cues[:, CUES.index(cue)]
        values = by_half.mean(axis=0)
        for index, value in enumerate(values[:1] if len(names) == 2 else values):
            mine = true == index
            if np.isfinite(value):
                yield CueScore(
                    modality=modality,
                    label=str(names[index]),
                    rest=str(names[1]) if len(names) == 2 else f"the other {modality} classes",
                    cue=cue,
                    auroc=float(value),
                    images=int(mine.sum()),
                    median=None if column is None else float(np.median(column[mine])),
                    median_rest=None if column is None else float(np.median(column[~mine])),
                )


def _log_odds(column: Floats, true: Indices, halves: Indices, classes: int) -> Floats:
    """Log odds of each class given the cue, (N, classes), learnt on the half an image is not in."""
    out = np.zeros((len(column), classes))
    for half in (0, 1):
        learn = halves != half
        if not learn.any():
            continue
        edges = np.unique(np.quantile(column[learn], np.linspace(0, 1, _BINS + 1)[1:-1]))
        # Half bins at the edges, so that a single value many images share has a bin of its own.
        bins = np.searchsorted(edges, column, "left") + np.searchsorted(edges, column, "right")
        table = np.zeros((2 * len(edges) + 1, classes))
        np.add.at(table, (bins[learn], true[learn]), 1)
        prior = (table.sum(axis=0) + 1) / (table.sum() + classes)
        share = (table + prior) / (table.sum(axis=1, keepdims=True) + 1)
        out[~learn] = (np.log(share) - np.log1p(-share))[bins[~learn]]
    return out
