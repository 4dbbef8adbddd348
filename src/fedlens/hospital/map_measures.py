"""Every measure of some images' maps at once: what rounds add up, and comparisons keep image by image."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedlens.explain.methods import find_method
from fedlens.explain.quality.measuring import QUICK, quality_values, timed_explanation
from fedlens.explain.straying import stray_values
from fedlens.hospital.images import Rows
from fedlens.hospital.regions import ImageRegions
from fedlens.imaging.preprocess import to_input
from fedlens.models.network import Network
from fedlens.study import SMALLEST_FIELD

BATCH = 32
_THREADS = 2

Floats = npt.NDArray[np.float64]


class MapMeasures:
    """Measures the maps of one split's images, each for the class that the network predicts.

    Args:
        regions: Of a hospital's images.
        method: Name of the explanation method.
        names: Measures to take beside ``cost`` and straying.
    """

    def __init__(self, regions: ImageRegions, method: str, names: Collection[str] = QUICK) -> None:
        self._regions = regions
        self._method = method
        self._names = names

    def values(self, network: Network, rows: Rows, cell: float) -> dict[str, Floats]:
        """Columns of up to ``BATCH`` images at ``rows``, float64 (k,) each.

        A batch is always of ``BATCH`` images, filled up with some that are not counted: so an image's
        figures do not depend, by as much as their last bit, on which others a hospital has. Localisation is
        left out where none of the images has an outline, straying in images too small for a field.

        Args:
            network: In evaluation mode.
            rows: (k,) indices into the images.
            cell: What the network's maps can place heat to, pixels, as ``cell_of`` gives it.

        Raises:
            ExplanationError: The method does not suit the network, or its outputs are not finite.
        """
        filled = np.resize(rows, BATCH)
        device = next(network.parameters()).device
        inputs = to_input(torch.from_numpy(self._regions.images.take(filled))).to(device)
        method = find_method(self._method)

        def explain(given: Tensor, targets: Tensor) -> Tensor:
            return method(network, given, targets).maps

        outlines, masks = self._regions.readable_outlines(rows), None
        if outlines is not None:
            masks = torch.from_numpy(np.resize(outlines, (BATCH, *outlines.shape[1:]))).to(device)
        explained, cost = timed_explanation(network, explain, inputs, masks=masks)
        values = {"cost": cost, **quality_values(explained, self._names)}
        values = {name: column[: len(rows)] for name, column in values.items()}
        if network.image_size >= SMALLEST_FIELD:
            with ThreadPoolExecutor(max_workers=_THREADS) as workers:
                fields = list(workers.map(self._regions.field, rows.tolist()))
            values |= stray_values(explained.maps[: len(rows)].cpu().numpy(), fields, cell)
        return values
