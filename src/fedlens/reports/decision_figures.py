"""Charts of advice: reliability, coverage against set size, risk against referral."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from fedlens.decision.conformal import Score
from fedlens.reports.decision import RATES, REFERRAL_RATE, DecisionResults
from fedlens.reports.figures import Draw, Theme

_SIZE = (9.2, 3.3)
_SCORE_NAMES: dict[Score, str] = {"lac": "smallest sets (LAC)", "aps": "adaptive sets (APS)"}


def reliability_diagram(results: DecisionResults) -> Draw:
    """Accuracy by probability, before and after scaling; bins of equally many images."""

    def draw(theme: Theme) -> Figure:
        figure = Figure(figsize=_SIZE, layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        named = zip(
            panels,
            ("As the network says", "After temperature scaling"),
            results.mass,
            (results.pooled.before, results.pooled.after),
            strict=True,
        )
        for axes, title, bins, overall in named:
            filled = bins.counts > 0
            axes.plot([0, 1], [0, 1], color=theme.faint, linewidth=1, linestyle=(0, (2, 2)))
            color = theme.arms["federated"]
            axes.vlines(
                bins.confidence[filled], bins.confidence[filled], bins.accuracy[filled], color=theme.loss
            )
            axes.plot(bins.confidence[filled], bins.accuracy[filled], "o-", color=color, markersize=4)
            axes.set_title(f"{title}: ECE {overall.ece:.3f}", loc="left", fontsize=10)
            axes.set_xlabel("Probability of the likeliest class")
            low = float(min(bins.confidence[filled].min(), bins.accuracy[filled].min(), 0.9))
            axes.set_xlim(max(0.0, low - 0.05), 1.0)
            axes.set_ylim(max(0.0, low - 0.05), 1.02)
            _percent(axes)
        panels[0].set_ylabel("Share that is right")
        return figure

    return draw


def coverage_chart(results: DecisionResults) -> Draw:
    """Coverage that was promised and found, and what it costs in classes a set."""

    def draw(theme: Theme) -> Figure:
        figure = Figure(figsize=_SIZE, layout="constrained")
        left, right = figure.subplots(1, 2)
        colors: dict[Score, str] = {"lac": theme.arms["federated"], "aps": theme.arms["central"]}
        for score, points in results.curves.items():
            promised = [point.promised for point in points]
            found = [point.coverage.value for point in points]
            style = {"color": colors[score], "marker": "o", "markersize": 3.5, "label": _SCORE_NAMES[score]}
            left.plot(promised, found, **style)
            left.fill_between(
                promised,
                [point.coverage.low for point in points],
                [point.coverage.high for point in points],
                color=colors[score],
                alpha=0.18,
                linewidth=0,
            )
            right.plot(found, [point.size for point in points], **style)
        left.plot([0.5, 1], [0.5, 1], color=theme.faint, linewidth=1, linestyle=(0, (2, 2)))
        left.set_xlabel("Promised coverage")
        left.set_title("Sets that hold the true class", loc="left", fontsize=10)
        right.set_xlabel("Coverage found")
        right.set_title("Mean classes in a set", loc="left", fontsize=10)
        left.legend(fontsize=8.5)
        _percent(left)
        right.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        right.grid(axis="y")
        return figure

    return draw


def risk_chart(results: DecisionResults) -> Draw:
    """Error of what is not referred, by the share that is; a dot where the threshold was chosen before."""

    def draw(theme: Theme) -> Figure:
        figure = Figure(figsize=(_SIZE[0], 2.9), layout="constrained")
        axes = figure.subplots()
        color = theme.arms["federated"]
        axes.plot(RATES, results.risk, color=color, linewidth=1.9)
        referral = results.pooled.referral
        axes.plot([referral.referred], [referral.error_of_rest.value], "o", color=theme.loss)
        axes.axvline(REFERRAL_RATE, color=theme.faint, linewidth=1, linestyle=(0, (2, 2)))
        axes.set_xlabel("Share of images referred, the least certain first")
        axes.set_ylabel("Error of the rest")
        axes.set_ylim(0, float(np.nanmax(results.risk)) * 1.1 + 1e-3)
        axes.set_xlim(0, float(RATES[-1]))
        _percent(axes, decimals=None)
        return figure

    return draw


def _percent(axes: Axes, *, decimals: int | None = 0) -> None:
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=decimals))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(axis="y")
