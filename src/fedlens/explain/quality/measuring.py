"""All measures of a batch, by column, ready to be added up."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedlens.explain.quality import faithfulness, localisation, road, robustness
from fedlens.explain.quality.explained import Explain, Explained
from fedlens.metrics.explanation import AREA, MEASURES, Measure
from fedlens.models.network import Network

Floats = npt.NDArray[np.float64]

EXAMINED: dict[str, Callable[[Explained], Tensor]] = {
    "deletion": faithfulness.deletion,
    "insertion": faithfulness.insertion,
    "infidelity": faithfulness.infidelity,
    "road": road.road,
    "max-sensitivity": robustness.max_sensitivity,
    "equivariance-flip": robustness.flip_equivariance,
    "equivariance-shift": robustness.shift_equivariance,
    "empty": lambda explained: (~explained.maps.flatten(1).any(1)).double(),
}
"""Measures of a network's maps, each to float64 (N,)."""

COMPARED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "pointing": localisation.pointing,
    "energy": localisation.energy,
    "rank": localisation.rank,
    "iou": localisation.overlap,
}
"""Measures of maps against outlines, each to float64 (N,) or (N, thresholds)."""

QUICK = ("pointing", "energy", "rank", "iou", "equivariance-flip", "empty")
"""What costs at most one more map an image."""


def timed_explanation(
    network: Network,
    explain: Explain,
    inputs: Tensor,
    targets: Tensor | None = None,
    masks: Tensor | None = None,
) -> tuple[Explained, Floats]:
    """Explain a batch, and say what a map costs in forward passes of the same batch.

    Both are timed once, one after the other, without a first run to warm up: on an idle machine the figure
    is right to some tenths; ``benchmarks/explain.py`` measures it closely. Without targets, each image is
    explained for the class that this pass predicts.

    Returns:
        The batch with its maps, and ``cost`` float64 (N,), the same for all of the batch.
    """
    began = time.perf_counter()
    with torch.no_grad():
        logits = network(inputs)
    _wait(inputs)
    passed = time.perf_counter()
    targets = logits.argmax(1) if targets is None else targets
    maps = explain(inputs, targets)
    _wait(inputs)
    ratio = (time.perf_counter() - passed) / max(passed - began, 1e-9)
    return Explained(network, explain, inputs, targets, maps, masks), np.full(len(inputs), ratio)


def quality_values(explained: Explained, names: Collection[str]) -> dict[str, Floats]:
    """Values of the measures named, with their baselines, float64 (N,) by column.

    Localisation is left out where no image has an outline.
    """
    values: dict[str, Floats] = {}
    for measure in MEASURES:
        if measure.name not in names:
            continue
        if measure.name in EXAMINED:
            values |= _split(measure.columns(), EXAMINED[measure.name](explained))
        elif measure.name in COMPARED and explained.masks is not None:
            values |= _compared(measure, explained.maps, explained.masks)
    return values


def _compared(measure: Measure, maps: Tensor, masks: Tensor) -> dict[str, Floats]:
    compare = COMPARED[measure.name]
    middle = localisation.centre_prior(masks)
    return {
        **_split(measure.columns(), compare(maps, masks)),
        **_split(measure.columns(measure.centre), compare(middle, masks)),
        **_split((AREA,), localisation.area(masks)),
    }


def _split(columns: tuple[str, ...], values: Tensor) -> dict[str, Floats]:
    table = values.reshape(len(values), len(columns)).double().cpu().numpy()
    return {column: table[:, index] for index, column in enumerate(columns)}


def _wait(inputs: Tensor) -> None:
    if inputs.is_cuda:
        torch.cuda.synchronize(inputs.device)
