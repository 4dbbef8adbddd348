"""Line charts as inline SVG: coordinates and texts, ready for the template, without a style of their own.

Colours come from style sheets by class, so that they follow light and dark; a strict content policy lets
no drawing carry a style anyway.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from fedlens.reports.paper import percent

_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 452, 12, 208
"""Of the drawing area, which the template's frame encloses."""
_ROOM = 0.05
"""Of its value, above and below a line that never moves."""
_DOTS = 40
"""Lines of more points have none drawn."""
_HITS = 240
_TICKS = 4
STYLES = 8
"""Colours that style sheets know, ``s0`` and so on."""


@dataclass(frozen=True)
class Series:
    """Values to draw.

    Attributes:
        name: For legend and hover.
        style: Number of its colour.
        xs: Places.
        values: At these; NaN where not measured.
        dotted: Drawn as dots.
        strong: Drawn heavier than the rest.
        group: What the legend calls it together with others of its colour; its own name where empty.
    """

    name: str
    style: int
    xs: Sequence[float]
    values: Sequence[float]
    dotted: bool = False
    strong: bool = True
    group: str = ""

    @property
    def points(self) -> list[tuple[float, float]]:
        """What was measured."""
        return [(x, y) for x, y in zip(self.xs, self.values, strict=True) if math.isfinite(y)]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What a direction measures.

    Attributes:
        name: Beside the axis.
        before: Before a value, as in ``round 3``.
        share: Values are shares, shown in percent.
        digits: After the point.
        low: Fixed end; None to follow the values.
        high: The same.
    """

    name: str = ""
    before: str = ""
    share: bool = False
    digits: int = 3
    low: float | None = None
    high: float | None = None

    def text(self, value: float) -> str:
        """A value for people."""
        return f"{percent(value)} %" if self.share else f"{self.before}{value:,.{self.digits}f}"

    def tick(self, value: float, ticks: Sequence[float]) -> str:
        """As short as a value can be told apart from its neighbours."""
        if not self.share:
            return f"{value:,g}"
        exact = (
            digits
            for digits in range(3)
            if all(math.isclose(100 * tick, round(100 * tick, digits), abs_tol=1e-6) for tick in ticks)
        )
        return f"{100 * value:.{next(exact, 2)}f} %"

    def ends(self, values: Sequence[float]) -> tuple[float, float]:
        """Least and greatest value to show."""
        low = min(values) if self.low is None else self.low
        high = max(values) if self.high is None else self.high
        if low == high:
            room = abs(high) * _ROOM or (_ROOM if self.share else 1.0)
            low, high = low - room, high + room
        return (max(low, 0.0), min(high, 1.0)) if self.share else (low, high)


@dataclass(frozen=True)
class Line:
    """One drawn line: classes, path, and dots where there are few points."""

    classes: str
    path: str
    dots: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Tick:
    """A place on an axis, and its text."""

    at: str
    text: str


@dataclass(frozen=True)
class Hit:
    """A strip of the chart that tells its values under the mouse."""

    x: str
    width: str
    text: str


@dataclass(frozen=True)
class Chart:
    """A line chart.

    Attributes:
        title: Above it.
        said: What it shows, for those who do not see it.
        lines: In the order of drawing.
        xs: Ticks of the horizontal axis.
        ys: Ticks of the vertical one.
        across: Name of the horizontal axis.
        rule: Height of a reference line; empty for none.
        hits: From left to right.
        legend: Name, number of colour, and whether dotted; empty for one line.
    """

    title: str
    said: str
    lines: tuple[Line, ...]
    xs: tuple[Tick, ...]
    ys: tuple[Tick, ...]
    across: str
    rule: str
    hits: tuple[Hit, ...]
    legend: tuple[tuple[str, int, bool], ...]


def line_chart(
    title: str, series: Iterable[Series], across: Axis, up: Axis, *, rule: float | None = None
) -> Chart | None:
    """Draw series over one another; None where nothing was measured.

    Args:
        title: Above the chart.
        series: The first ones lie on top.
        across: Horizontal axis.
        up: Vertical axis.
        rule: A value to set the others against.
    """
    shown = [entry for entry in series if entry.points]
    if not shown:
        return None
    xs = [x for entry in shown for x, _ in entry.points]
    ys = [y for entry in shown for _, y in entry.points] + ([] if rule is None else [rule])
    left, right = across.ends(xs)
    y_ticks = _nice(*up.ends(ys))
    place_x = _scale(left, right, _LEFT, _RIGHT)
    place_y = _scale(y_ticks[0], y_ticks[-1], _BOTTOM, _TOP)
    return Chart(
        title=title,
        said=f"{title}. {_said(shown, across, up)}",
        lines=tuple(_line(entry, place_x, place_y) for entry in reversed(shown)),
        xs=tuple(
            Tick(f"{place_x(x):.1f}", across.tick(x, ()))
            for x in _nice(left, right, whole=True)
            if left <= x <= right
        ),
        ys=tuple(Tick(f"{place_y(y):.1f}", up.tick(y, y_ticks)) for y in y_ticks),
        across=across.name,
        rule="" if rule is None else f"{place_y(rule):.1f}",
        hits=tuple(_hits(shown, across, up, place_x)),
        legend=_legend(shown) if len(shown) > 1 else (),
    )


def _legend(shown: Sequence[Series]) -> tuple[tuple[str, int, bool], ...]:
    return tuple(dict.fromkeys((entry.group or entry.name, entry.style, entry.dotted) for entry in shown))


def _said(shown: Sequence[Series], across: Axis, up: Axis) -> str:
    ends = []
    for entry in shown:
        x, y = entry.points[-1]
        ends.append(f"{entry.name} {up.text(y)} at {across.text(x)}")
    return "Last values: " + "; ".join(ends) + "."


def _line(entry: Series, place_x: Callable[[float], float], place_y: Callable[[float], float]) -> Line:
    points = [(f"{place_x(x):.1f}", f"{place_y(y):.1f}") for x, y in entry.points]
    marks = [f"s{entry.style % STYLES}"]
    marks += ["dotted"] * entry.dotted + ["faint"] * (not entry.strong)
    few = len(points) == 1 or (len(points) <= _DOTS and not entry.dotted)
    return Line(" ".join(marks), "M" + "L".join(f"{x} {y}" for x, y in points), tuple(points) if few else ())


def _hits(
    shown: Sequence[Series], across: Axis, up: Axis, place_x: Callable[[float], float]
) -> Iterable[Hit]:
    values: dict[float, list[str]] = {}
    for entry in shown:
        for x, y in entry.points:
            values.setdefault(x, []).append(f"{entry.name}: {up.text(y)}")
    xs = sorted(values)
    xs = xs[:: max(1, -(-len(xs) // _HITS))]
    middles = [(place_x(one) + place_x(other)) / 2 for one, other in pairwise(xs)]
    edges = [_LEFT, *middles, _RIGHT + 8]
    for x, (start, end) in zip(xs, pairwise(edges), strict=True):
        text = "\n".join([across.text(x), *values[x]])
        yield Hit(f"{start:.1f}", f"{max(end - start, 0):.1f}", text)


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = high - low
    return lambda value: start + (end - start) * ((value - low) / span if span else 0.5)


def _nice(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Round numbers that enclose a range."""
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * by for by in (1, 2, 2.5, 5, 10) if power * by >= rough * 0.999)
    if whole:
        step = max(1.0, round(step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * place, 10) for place in range(first, max(last, first + 1) + 1)]
