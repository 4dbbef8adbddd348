"""Figures for people: image, heat and what the network makes of it, side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from fedlens.explain.overlay import COLOURS, OUTLINE, overlay
from fedlens.explain.saliency import SaliencyMap
from fedlens.files import whole_file

_TARGET_COLOUR = "#b5367a"
_OTHER_COLOUR = "#9a9a9a"


def explanation_figure(
    image: npt.NDArray[np.uint8],
    saliency: SaliencyMap,
    *,
    mask: npt.NDArray[np.bool_] | None = None,
    truth: str = "",
    top: int = 5,
) -> Figure:
    """Original, overlay with colour bar, and the likeliest classes.

    The figure belongs to no pyplot state, so any number can be made in any thread.

    Args:
        image: uint8 (H, W) grey or (H, W, 3) RGB, the original.
        saliency: Of this image.
        mask: bool (H, W), outlined in the overlay.
        truth: Known label, for the title.
        top: Most classes shown.
    """
    figure = Figure(figsize=(10.5, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    original, heated, bars = figure.subplots(1, 3, width_ratios=(1, 1, 0.75))
    _show(original, image, "image" + (f" (label: {truth})" if truth else ""))
    _show(heated, overlay(image, saliency.values, mask=mask), f"evidence for {saliency.target_name}")
    if mask is not None:
        heated.plot([], [], color=tuple(part / 255 for part in OUTLINE), label="expert outline")
        heated.legend(loc="lower left", fontsize=7, framealpha=0.7)
    if saliency.empty:
        heated.set_xlabel("nothing in the image speaks for this class")
    scale = ScalarMappable(Normalize(0, 1), COLOURS)
    figure.colorbar(scale, ax=heated, fraction=0.046, label="share of the hottest place")
    _bars(bars, saliency, top)
    figure.suptitle(Path(saliency.file).name, fontsize=10)
    return figure


def save_figure(path: Path, figure: Figure, *, dots_per_inch: int = 150) -> Path:
    """Write a figure as PNG, whole or not at all."""
    with whole_file(path) as part:
        figure.savefig(part, format="png", dpi=dots_per_inch)
    return path


def _show(axes: Axes, image: npt.NDArray[np.uint8], title: str) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=255)
    axes.set_title(title, fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])


def _bars(axes: Axes, saliency: SaliencyMap, top: int) -> None:
    shown = saliency.ranked()[:top][::-1]
    names = [name for name, _ in shown]
    colours = [_TARGET_COLOUR if name == saliency.target_name else _OTHER_COLOUR for name in names]
    bars = axes.barh(names, [probability for _, probability in shown], color=colours)
    axes.bar_label(bars, labels=[f"{probability:.1%}" for _, probability in shown], padding=3, fontsize=8)
    axes.set_xlim(0, 1.25)
    axes.set_xticks([0, 0.5, 1])
    axes.set_title("probability", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
