"""What every HTML page shares: templates, charts in both looks, settings as rows.

A page needs nothing else: no network, no files beside it. All text that enters a template is escaped.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt

from fedlens.reports import figures
from fedlens.reports.figures import DARK, LIGHT, Draw
from fedlens.reports.paper import p_text, percent, points

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Picture:
    """A chart in both looks, as data addresses."""

    alt: str
    light: str
    dark: str


def environment(*folders: Path) -> jinja2.Environment:
    """Templates of reports, and those of further folders, which go before.

    All text that enters one is escaped, and a name that nobody filled in is an error.
    """
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, _TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"percent": percent, "points": points, "p_text": p_text, "png": _png_address}
    return found


def render(template: str, context: Mapping[str, Any]) -> str:
    """A page as HTML text; the same context gives the same page."""
    page = environment().get_template(template).render(context)
    # JSON can bring half a surrogate pair, which no file can hold.
    return page.encode("utf-8", "replace").decode()


def picture(draw: Draw, alt: str) -> Picture:
    """A chart, drawn twice."""
    return Picture(alt, _svg_address(figures.svg(draw, LIGHT)), _svg_address(figures.svg(draw, DARK)))


def confusion_picture(confusion: npt.NDArray[np.int64], classes: Sequence[str]) -> Picture:
    """The confusion matrix; its figures stand in the table of classes too."""
    return picture(
        figures.confusion_heat(confusion, classes),
        "Confusion matrix: true classes in rows, predicted classes in columns. "
        "Recall of each class, its diagonal share, stands in the table of classes.",
    )


def flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names of all settings, as they stand in a study file, with their values."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{before}{name}.")
        elif isinstance(value, float) and not math.isfinite(value):
            yield before + name, "–"
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            yield before + name, text if value not in (None, "", [], (), {}) else "–"


def _svg_address(content: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(content).decode()


def _png_address(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()
