"""Figures of measured maps in words; localisation never without what a random map would get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Figures = Mapping[str, Mapping[str, Any]]
"""As from :func:`fedlens.metrics.explanation_totals.figures`."""

DASH = "–"


def share(figures: Figures, name: str) -> str:
    """A measure's value in percent; a dash where it was taken on no image."""
    return f"{100 * figures[name]['value']:.1f} %" if name in figures else DASH


def times_chance(figures: Figures, name: str) -> str:
    """A measure's value in multiples of what a random map gets; a dash where that is unknown."""
    times = figures.get(name, {}).get("times_chance")
    return DASH if times is None else f"{times:.2f}"


def maps_said(figures: Figures) -> str:
    """Pointing, energy and straying in one clause; empty where none was taken."""
    parts = [
        f"{title} {share(figures, name)} ({times_chance(figures, name)} times chance)"
        for name, title in (("pointing", "pointing"), ("energy", "energy inside"))
        if name in figures
    ]
    if "strays" in figures:
        parts.append(f"{share(figures, 'strays')} stray")
    return "maps: " + ", ".join(parts) if parts else ""
