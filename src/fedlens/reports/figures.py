"""Charts of a report: Matplotlib figures without a screen, as SVG or PNG bytes.

Colours are Okabe and Ito's, told apart with any colour vision; what the paper reports is hollow
and hatched, what was measured here is solid.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fedlens.reports.comparison import Comparison
from fedlens.reports.measures import LOCAL
from fedlens.reports.paper import ARM_LABELS, METRICS, ResultRow, percent, points, results_table
from fedlens.reports.shares import Share, class_counts

MAIN_ARMS = ("local", "central", "federated", "explainable")
"""Arms with bars of their own; those that try one idea alone are in the tables."""

_WIDTH = 9.2
_LONGEST_NAME = 22
_LETTER = 0.08


@dataclass(frozen=True)
class Theme:
    """Colours of one look of the report; figures have no background of their own."""

    ink: str
    faint: str
    grid: str
    paper: str
    arms: dict[str, str]
    loss: str
    heat: str

    def settings(self) -> dict[str, Any]:
        """Matplotlib settings. Names come from files, so a dollar sign must not start a formula."""
        return {
            "text.parse_math": False,
            "svg.fonttype": "path",
            "svg.hashsalt": "fedlens",
            "font.family": ["DejaVu Sans"],
            "font.size": 9.5,
            "text.color": self.ink,
            "axes.labelcolor": self.ink,
            "axes.edgecolor": self.faint,
            "axes.linewidth": 0.8,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "axes.grid": False,
            "grid.color": self.grid,
            "grid.linewidth": 0.8,
            "hatch.linewidth": 0.7,
            "xtick.color": self.faint,
            "xtick.labelcolor": self.ink,
            "ytick.color": self.faint,
            "ytick.labelcolor": self.ink,
            "legend.frameon": False,
        }


LIGHT = Theme(
    ink="#1c2530",
    faint="#7a8592",
    grid="#e4e8ed",
    paper="#ffffff",
    arms={
        "local": "#8c96a3",
        "central": "#e69f00",
        "federated": "#0072b2",
        "explainable": "#009e73",
        "explainable-outline": "#cc79a7",
        "explainable-field": "#56b4e9",
        "explainable-consistency": "#b5651d",
        "explainable-weighting": "#7a6fb0",
    },
    loss="#d55e00",
    heat="#0b5a94",
)
DARK = Theme(
    ink="#e8ecf1",
    faint="#8b96a5",
    grid="#2c3642",
    paper="#161c24",
    arms={
        "local": "#8c96a3",
        "central": "#e9ad2b",
        "federated": "#4ba3dd",
        "explainable": "#2fbf92",
        "explainable-outline": "#e094bf",
        "explainable-field": "#8fd0f5",
        "explainable-consistency": "#d99a5b",
        "explainable-weighting": "#a79bdc",
    },
    loss="#f08a4b",
    heat="#5db4f0",
)
Draw = Callable[[Theme], Figure]


@dataclass(frozen=True)
class TrainingCurve:
    """How one arm learned.

    Attributes:
        arm: As in the comparison; a hospital's own network as ``local-A``.
        seed: Training seed.
        passes: (n,) passes over the arm's training images so far, the same scale in every arm.
        training_loss: (n,) mean cross entropy while training; NaN where not measured.
        validation_loss: (n,) mean cross entropy on validation images; NaN where not measured.
        validation_accuracy: (n,) 0..1; NaN where not measured.
    """

    arm: str
    seed: int
    passes: tuple[float, ...]
    training_loss: tuple[float, ...]
    validation_loss: tuple[float, ...]
    validation_accuracy: tuple[float, ...]


def training_curve(
    arm: str, seed: int, events: Sequence[Mapping[str, Any]], *, passes: float
) -> TrainingCurve:
    """A curve from the events of ``history.jsonl``.

    Args:
        arm: Name of the arm.
        seed: Training seed.
        events: As ``fedlens.coordinator.history.read_history`` returns them.
        passes: Passes of the whole training (``training.passes``).
    """
    planned = next((event["rounds"] for event in events if event.get("event") == "start"), 1)
    rounds = [event for event in events if event.get("event") == "round"]
    evaluations = [event.get("evaluation", {}) for event in rounds]
    return TrainingCurve(
        arm=arm,
        seed=seed,
        passes=tuple(event["round"] * passes / planned for event in rounds),
        training_loss=tuple(_measured(event.get("loss")) for event in rounds),
        validation_loss=tuple(_measured(evaluation.get("loss")) for evaluation in evaluations),
        validation_accuracy=tuple(_measured(evaluation.get("accuracy")) for evaluation in evaluations),
    )


def svg(draw: Draw, theme: Theme = LIGHT) -> bytes:
    """A chart as SVG without background; the same chart gives the same bytes."""
    with matplotlib.rc_context(theme.settings()):
        figure = draw(theme)
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    return stream.getvalue()


def png(draw: Draw, theme: Theme = LIGHT, *, dpi: int = 160) -> bytes:
    """A chart as PNG on the theme's paper colour."""
    with matplotlib.rc_context(theme.settings()):
        figure = draw(theme)
        FigureCanvasAgg(figure)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=dpi, facecolor=theme.paper)
    return stream.getvalue()


def arm_bars(comparison: Comparison) -> Draw:
    """Accuracy, precision, recall and F1 of the main arms, with the paper's beside (its figure 4)."""
    rows = [row for row in results_table(comparison) if row.arm in MAIN_ARMS]
    bars = [(row, reported) for row in rows for reported in (False, True) if row.paper or not reported]
    width = 0.84 / len(bars)

    def draw(theme: Theme) -> Figure:
        figure, axes = _canvas(_WIDTH, 4.3)
        for place, (row, reported) in enumerate(bars):
            at = np.arange(len(METRICS)) + (place - (len(bars) - 1) / 2) * width
            color = theme.arms[row.arm]
            if reported:
                values = np.array(row.paper)
                style: dict[str, Any] = {
                    "facecolor": "none",
                    "edgecolor": color,
                    "hatch": "////",
                    "linewidth": 1.0,
                }
                axes.bar(at, values, width * 0.86, label=f"{row.label}, paper", **style)
                tops = values
            else:
                ours = row.ours[: len(METRICS)]
                values = np.array([entry.mean for entry in ours])
                ends = np.array([[entry.low, entry.high] for entry in ours])
                ends = np.where(np.isnan(ends), values[:, None], ends)
                axes.bar(at, values, width * 0.86, color=color, edgecolor=color, label=f"{row.label}, here")
                reach = np.maximum(np.stack([values - ends[:, 0], ends[:, 1] - values]), 0)
                axes.errorbar(at, values, reach, fmt="none", ecolor=theme.ink, elinewidth=1.1, capsize=2.2)
                tops = np.maximum(values, ends[:, 1])
            for x, value, top in zip(at, values, tops, strict=True):
                text = percent(float(value))
                axes.annotate(text, (x, top), (0, 3), textcoords="offset points", ha="center", fontsize=6.9)
        axes.set_xticks(np.arange(len(METRICS)), list(METRICS.values()), fontsize=11)
        axes.tick_params(axis="x", length=0)
        _percent_axis(axes, theme)
        figure.legend(*_columns(axes, rows), loc="outside upper center", ncols=len(rows), fontsize=8.5)
        return figure

    return draw


def hospital_gains(comparison: Comparison) -> Draw:
    """What federation gives each hospital over training alone, in percentage points."""
    gains = comparison.gains[::-1]

    def draw(theme: Theme) -> Figure:
        figure, axes = _canvas(_WIDTH, 1.1 + 0.46 * len(gains))
        for place, gain in enumerate(gains):
            result = gain.result
            color = theme.arms["federated"] if result.difference >= 0 else theme.loss
            weight = "bold" if not gain.hospital else "normal"
            axes.barh(place, 100 * result.difference, 0.56, color=color, alpha=0.9 if gain.hospital else 1)
            if not np.isnan(result.low):
                ends = np.maximum([[result.difference - result.low], [result.high - result.difference]], 0)
                axes.errorbar(
                    100 * result.difference, place, xerr=100 * ends, fmt="none", ecolor=theme.ink, capsize=3
                )
            text = f"{points(result.difference)}   {percent(result.second)} → {percent(result.first)} %"
            edge = 100 * np.nanmax([result.difference, result.high, 0.0])
            axes.annotate(
                text, (edge, place), (8, 0), textcoords="offset points", va="center", fontweight=weight
            )
        names = [f"Hospital {_short(gain.hospital)}" if gain.hospital else "All hospitals" for gain in gains]
        axes.set_yticks(range(len(gains)), names)
        axes.tick_params(axis="y", length=0)
        axes.axvline(0, color=theme.ink, linewidth=1)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_xlabel("Accuracy on its own test images: federated minus alone, percentage points")
        low, high = axes.get_xlim()
        axes.set_xlim(low, high + 0.28 * (high - low))
        return figure

    return draw


def training_curves(curves: Sequence[TrainingCurve]) -> Draw:
    """Validation accuracy and loss of the main arms over passes; a line a seed, hospitals alone in grey."""
    shown = [(arm, curve) for curve in curves if (arm := _kin(curve.arm)) in MAIN_ARMS]
    shown.sort(key=lambda entry: MAIN_ARMS.index(entry[0]))

    def draw(theme: Theme) -> Figure:
        figure = Figure(figsize=(_WIDTH, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        labelled: set[str] = set()
        for arm, curve in shown:
            color = theme.arms.get(arm, theme.ink)
            label = "" if arm in labelled else curve_label(arm)
            labelled.add(arm)
            style = {
                "color": color,
                "linewidth": 1.1 if arm == "local" else 1.9,
                "marker": "o" if len(curve.passes) == 1 else "",
            }
            line(left, curve.passes, curve.validation_accuracy, label=label, **style)
            line(right, curve.passes, curve.validation_loss, **style)
            line(
                right, curve.passes, curve.training_loss, **{**style, "linestyle": (0, (2, 2)), "alpha": 0.7}
            )
        left.set_title("Validation accuracy", loc="left", fontsize=10.5)
        right.set_title("Cross entropy: validation —, training ···", loc="left", fontsize=10.5)
        left.yaxis.set_major_formatter(PercentFormatter(1.0))
        right.set_ylim(bottom=0)
        for axes in (left, right):
            axes.set_xlabel("Passes over the training images")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(axis="y")
        if labelled:
            figure.legend(loc="outside upper center", ncols=len(labelled), fontsize=8.5)
        return figure

    return draw


def _kin(arm: str) -> str:
    return "local" if arm.startswith(LOCAL) else arm


def curve_label(arm: str) -> str:
    """An arm as legends name it."""
    return "Each hospital alone" if arm == "local" else ARM_LABELS.get(arm, arm.capitalize())


def confusion_heat(confusion: npt.NDArray[np.int64], classes: Sequence[str]) -> Draw:
    """Counts of true (rows) against predicted (columns) classes, shaded by share of the row."""
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    side = 1.9 + 0.62 * len(classes)
    return _heat(confusion, share, classes, classes, "Predicted", "True", (min(side + 0.8, _WIDTH), side))


def class_balance(shares: Sequence[Share]) -> Draw:
    """Images of each class at each hospital, all splits, shaded by share of the hospital."""
    hospitals, labels, counts = class_counts(shares)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = (min(2.4 + 0.78 * len(labels), _WIDTH), 1.6 + 0.46 * len(hospitals))
    return _heat(counts, share, hospitals, labels, "Class", "Hospital", size)


def _heat(
    counts: npt.NDArray[np.int64],
    share: npt.NDArray[np.float64],
    rows: Sequence[str],
    columns: Sequence[str],
    across: str,
    down: str,
    size: tuple[float, float],
) -> Draw:
    def draw(theme: Theme) -> Figure:
        figure, axes = _canvas(*size)
        colors = LinearSegmentedColormap.from_list("heat", [theme.paper, theme.heat])
        axes.imshow(share, cmap=colors, vmin=0, vmax=1, aspect="auto")
        for (row, column), count in np.ndenumerate(counts):
            back = np.array(colors(float(share[row, column]))[:3]) @ (0.299, 0.587, 0.114)
            text = f"{count:,}" if count else "·"
            color = "#ffffff" if back < 0.53 else "#10161d"
            color = theme.faint if not count else color
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8.5)
        # Names stand level only where the longest fits its column.
        turn = max(len(_short(name)) for name in columns) * _LETTER > (size[0] - 1.8) / len(columns)
        axes.set_xticks(
            range(len(columns)),
            [_short(name) for name in columns],
            rotation=35 if turn else 0,
            ha="right" if turn else "center",
            rotation_mode="anchor" if turn else "default",
        )
        axes.set_yticks(range(len(rows)), [_short(name) for name in rows])
        axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
        axes.grid(which="minor", color=theme.grid, linewidth=1)
        axes.tick_params(which="both", length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_xlabel(across)
        axes.set_ylabel(down)
        return figure

    return draw


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _percent_axis(axes: Axes, theme: Theme) -> None:
    axes.set_ylim(0, 1.04)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, labelcolor=theme.faint)


def _columns(axes: Axes, rows: Sequence[ResultRow]) -> tuple[list[Any], list[str]]:
    """Legend entries, column by column: an arm's solid bar above its hatched one, or above nothing."""
    found = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    labels = [
        label for row in rows for label in (f"{row.label}, here", f"{row.label}, paper" if row.paper else "")
    ]
    return [found.get(label, Patch(alpha=0)) for label in labels], labels


def line(axes: Axes, passes: Sequence[float], values: Sequence[float], **style: Any) -> None:
    """Points without a measurement are bridged, not broken."""
    x, y = np.array(passes, np.float64), np.array(values, np.float64)
    measured = np.isfinite(y)
    if measured.any():
        axes.plot(x[measured], y[measured], **style)


def _measured(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _short(name: str) -> str:
    line = " ".join(name.split())
    return line if len(line) <= _LONGEST_NAME else line[: _LONGEST_NAME - 1] + "…"
