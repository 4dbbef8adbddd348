"""Everything fitted, under some settings: from a network's outputs for an image to advice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from fedlens.decision.advice import Advice, Findings, advise
from fedlens.decision.conformal import ConformalRule, last_bin
from fedlens.decision.scores import bin_edges, bin_of, log_odds, scaled
from fedlens.decision.settings import DecisionSettings
from fedlens.decision.totals import ScoreTotals
from fedlens.decision.unlike import FeatureStatistics, distance_bin

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Judged:
    """What is said of one image.

    Attributes:
        probabilities: Calibrated, in the order of the network's outputs.
        label_set: Classes of the prediction set, the likeliest first; may be empty.
        distance: From the training images; about 1 for images like them.
        advice: And its reasons.
    """

    probabilities: tuple[float, ...]
    label_set: tuple[str, ...]
    distance: float
    advice: Advice


@dataclass(frozen=True, eq=False)
class Rules:
    """Fitted rules.

    Attributes:
        classes: Names in the order of the network's outputs.
        settings: What was asked for.
        temperature: Divides logits.
        conformal: Which classes a set holds.
        statistics: Of the training images' features.
        last_distance: Last bin of distances that is like the training images.
        last_uncertain: Last bin of the likeliest class's log odds that is referred; -1 for none.
        operating: Bin of log odds from which on each class counts as found.
    """

    classes: tuple[str, ...]
    settings: DecisionSettings
    temperature: float
    conformal: ConformalRule
    statistics: FeatureStatistics
    last_distance: int
    last_uncertain: int
    operating: tuple[int, ...]

    @classmethod
    def fit(
        cls,
        classes: Sequence[str],
        settings: DecisionSettings,
        temperature: float,
        statistics: FeatureStatistics,
        scores: ScoreTotals,
    ) -> Rules:
        """Thresholds from validation images' histograms, summed over hospitals."""
        histogram = scores.lac if settings.score == "lac" else scores.aps
        conformal = ConformalRule.fit(
            histogram, settings.coverage, score=settings.score, per_class=settings.per_class
        )
        return cls(
            classes=tuple(classes),
            settings=settings,
            temperature=temperature,
            conformal=conformal,
            statistics=statistics,
            last_distance=last_bin(scores.distances, settings.within),
            last_uncertain=_last_uncertain(scores.certainty.sum(0), settings.referral_rate),
            operating=tuple(_operating_bin(row, settings.sensitivity) for row in scores.positives),
        )

    def scaled(self, log_p: Floats) -> Floats:
        """Calibrated log probabilities, float64 (N, C)."""
        return scaled(log_p, self.temperature)

    def uncertain(self, log_p: Floats) -> Flags:
        """Whether each image is among the least certain ones, bool (N,), from scaled ``log_p``."""
        return np.asarray(bin_of(log_odds(log_p)).max(1) <= self.last_uncertain, np.bool_)

    def found(self, log_p: Floats) -> Flags:
        """Whether each class is at or above its operating point, bool (N, C)."""
        return np.asarray(bin_of(log_odds(log_p)) >= np.array(self.operating), np.bool_)

    def thresholds(self) -> dict[str, float]:
        """Each class's operating point as a calibrated probability."""
        edges = bin_edges()
        return {
            name: float(expit(edges[place])) for name, place in zip(self.classes, self.operating, strict=True)
        }

    def judge(
        self, log_p: Floats, features: npt.NDArray[np.floating], straying: Sequence[str] = ()
    ) -> list[Judged]:
        """Sets and advice for some images of known kinds.

        Args:
            log_p: (N, C) log probabilities as the network gives them.
            features: (N, K).
            straying: Where each map strays, in words; empty altogether where maps were not looked at.
        """
        calibrated = self.scaled(log_p)
        sets = self.conformal.sets(calibrated)
        distances = self.statistics.distances(features)
        unlike = distance_bin(distances) > self.last_distance
        uncertain = self.uncertain(calibrated)
        words = straying or [""] * len(log_p)
        judged = []
        for row, chances in enumerate(np.exp(calibrated)):
            order = np.argsort(-chances, kind="stable")
            names = tuple(self.classes[index] for index in order if sets[row, index])
            top = int(order[0])
            found = Findings(
                classes=names,
                probability=float(chances[top]),
                uncertain=bool(uncertain[row]),
                unlike=bool(unlike[row]),
                straying=words[row] if self.settings.straying else "",
            )
            advice = advise(found, self.settings)
            judged.append(Judged(tuple(chances.tolist()), names, float(distances[row]), advice))
        return judged


def _last_uncertain(histogram: Counts, rate: float) -> int:
    if rate <= 0:
        return -1
    return int(np.searchsorted(np.cumsum(histogram), rate * histogram.sum()))


def _operating_bin(positives: Counts, sensitivity: float) -> int:
    """The highest bin with at least this share of a class's images in it or above; 0 without images."""
    from_above = np.cumsum(positives[::-1])[::-1]
    kept = np.flatnonzero(from_above >= sensitivity * max(1, int(positives.sum())))
    return int(kept[-1]) if len(kept) else 0
