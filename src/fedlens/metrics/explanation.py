"""What is measured on explanations: each measure's direction, range, unit and source.

The descriptions stand here, apart from the pixels they are computed on (``fedlens.explain.quality``,
``fedlens.explain.straying``), because the coordinator turns sums of them into figures and may not
know what an image is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Family = Literal["faithfulness", "localisation", "robustness", "cost", "straying"]

IOU_THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Heat above which a place counts as marked, for the overlap with the outline."""

STRAY_REGIONS = ("outside", "text", "border", "corners", "hair")
"""Where heat has no business: outside the body, on letters and rulers, frames, dark corners, hairs."""


@dataclass(frozen=True)
class Measure:
    """One figure of an explanation's quality.

    Attributes:
        name: Unique; the key in totals and reports.
        title: For people.
        family: What it judges.
        better: Whether higher or lower values are better.
        low: Least possible value.
        high: Greatest possible value.
        unit: Of the value.
        source: The paper that proposed it.
        thresholds: Where the value is a curve over thresholds: these. The figure is the best of the mean
            curve, so one threshold serves all images.
        chance: Column with each image's expected value of a map that is random and blind; empty where
            none is known.
        centre: Column, or prefix of columns, with the value of a map that is hot in the middle whatever
            the image shows; empty where none is taken.
    """

    name: str
    title: str
    family: Family
    better: Literal["higher", "lower"]
    low: float
    high: float
    unit: str
    source: str
    thresholds: tuple[float, ...] = ()
    chance: str = ""
    centre: str = ""

    def columns(self, prefix: str = "") -> tuple[str, ...]:
        """Names of the measure's columns in totals, or of its baseline's where ``prefix`` is that."""
        name = prefix or self.name
        return tuple(f"{name}@{threshold:.2f}" for threshold in self.thresholds) or (name,)


AREA = "area"
"""Column with the share of the image inside the outline: what every localisation measure gives by chance.

A random map's hottest place lies inside with that probability, that share of its heat and of its K hottest
places does, and no threshold gives it, on average, more overlap than marking the whole image, which gives
just that share."""

_ARRAS = "Arras, Osman, Samek: CLEVR-XAI, Information Fusion 81 (2022)"
_YEH = "Yeh et al.: On the (In)fidelity and Sensitivity of Explanations, NeurIPS 2019"
_CRABBE = "Crabbé, van der Schaar: Evaluating the Robustness of Interpretability Methods, NeurIPS 2023"
_PETSIUK = "Petsiuk, Das, Saenko: RISE, BMVC 2018"
_SELF = "FedLens"


def _located(name: str, title: str, source: str, thresholds: tuple[float, ...] = ()) -> Measure:
    return Measure(
        name,
        title,
        "localisation",
        "higher",
        0,
        1,
        "share",
        source,
        thresholds,
        chance=AREA,
        centre=f"{name}-centre",
    )


def _moving(name: str, title: str) -> Measure:
    return Measure(name, title, "robustness", "higher", 0, 1, "cosine", _CRABBE)


def _stray(region: str, title: str) -> tuple[Measure, Measure]:
    return (
        Measure(
            f"energy-{region}",
            f"energy {title}",
            "straying",
            "lower",
            0,
            1,
            "share",
            _SELF,
            chance=f"area-{region}",
        ),
        Measure(
            f"strays-{region}", f"maps that stray {title}", "straying", "lower", 0, 1, "share of maps", _SELF
        ),
    )


MEASURES: tuple[Measure, ...] = (
    Measure(
        "deletion",
        "deletion area under the curve",
        "faithfulness",
        "lower",
        0,
        1,
        "probability",
        _PETSIUK,
    ),
    Measure(
        "insertion",
        "insertion area under the curve",
        "faithfulness",
        "higher",
        0,
        1,
        "probability",
        _PETSIUK,
    ),
    Measure("infidelity", "infidelity", "faithfulness", "lower", 0, 1, "probability squared", _YEH),
    Measure(
        "road",
        "remove and debias: least minus most relevant first",
        "faithfulness",
        "higher",
        -1,
        1,
        "probability",
        "Rong et al.: A Consistent and Efficient Evaluation Strategy for Attribution Methods, ICML 2022",
    ),
    _located(
        "pointing",
        "pointing game",
        "Zhang et al.: Top-Down Neural Attention by Excitation Backprop, ECCV 2016",
    ),
    _located("energy", "energy inside the outline (relevance mass accuracy)", _ARRAS),
    _located("rank", "relevance rank accuracy", _ARRAS),
    _located(
        "iou",
        "overlap with the outline at the best threshold",
        "Zhou et al.: Learning Deep Features for Discriminative Localization, CVPR 2016",
        IOU_THRESHOLDS,
    ),
    Measure("max-sensitivity", "max-sensitivity", "robustness", "lower", 0, 1024, "relative change", _YEH),
    _moving("equivariance-flip", "equivariance under a flip"),
    _moving("equivariance-shift", "equivariance under small shifts"),
    Measure("empty", "maps without any evidence", "robustness", "lower", 0, 1, "share of maps", _SELF),
    Measure("cost", "cost of a map", "cost", "lower", 0, 1024, "forward passes", _SELF),
    *_stray("outside", "outside the body"),
    *_stray("text", "on letters, markers or rulers"),
    *_stray("border", "on frames and collimation borders"),
    *_stray("corners", "in dark corners"),
    *_stray("hair", "on hairs"),
    Measure("strays", "maps that stray anywhere", "straying", "lower", 0, 1, "share of maps", _SELF),
)


def _all_columns() -> tuple[str, ...]:
    names: dict[str, None] = {}
    for measure in MEASURES:
        names.update(dict.fromkeys(measure.columns()))
        names.update(dict.fromkeys((measure.chance,) if measure.chance else ()))
        names.update(dict.fromkeys(measure.columns(measure.centre) if measure.centre else ()))
    return tuple(names)


EXPLAINED = "empty"
"""Column that is defined for every image explained, so that its count is theirs."""

COLUMNS = _all_columns()
"""Every column of totals, in order: measures' own values and their baselines'."""
