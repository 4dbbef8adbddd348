"""Ranges, value bits and norm bound of the next sealed round, agreed from the sums of the last ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from fedlens.protocol.encoding import WIDE_BITS, Counts, agreed_ranges
from fedlens.protocol.messages import Parameters

Ranges = npt.NDArray[np.float32]

_MARGIN = 2.0
_NORM_MARGIN = 20.0
# A warm-up starts with steps of almost nothing.
_LEAST_NORM = 0.01
# Nobody knows yet how far weights will move: as far as several times what they are, and at least so far.
_FIRST_REACH = 4.0
_LEAST_REACH = 1.0
# Running variances of a fresh network jump from 1 to whatever its activations have.
_BUFFER_REACH = 4096.0


class RangeKeeper:
    """Learns from every opened sum how large the next numbers may be.

    Args:
        carried: From :meth:`carried` of the last process; empty in a new study.
        norm_bound: From the study; 0 for one that follows the rounds.
    """

    def __init__(self, carried: Parameters, norm_bound: float) -> None:
        self._carried = dict(carried)
        self._fixed_bound = norm_bound

    @property
    def images(self) -> int:
        """Training images of all hospitals that enrolled together."""
        return int(self._carried["images"])

    def enrolled(self, images: int) -> None:
        """Remember the federation's image count."""
        self._carried["images"] = np.array(images, np.int64)

    def carried(self) -> Parameters:
        """All that must survive an interruption; float32 and int64 arrays."""
        return dict(self._carried)

    def ranges(
        self, template: Parameters, names: Sequence[str], value_bits: int, buffers: Collection[str]
    ) -> tuple[int, Ranges]:
        """Value bits, and the largest magnitude of each array in the next round, float32 (arrays,).

        The first round is wide: 40 bits, and ranges from the weights' own size.
        """
        if all(f"range/{name}" in self._carried for name in names):
            return value_bits, np.array([self._carried[f"range/{name}"] for name in names], np.float32)
        first = [
            _BUFFER_REACH
            if name in buffers
            else _FIRST_REACH * max(float(np.abs(template[name]).max(initial=0)), _LEAST_REACH)
            for name in names
        ]
        return WIDE_BITS, np.array(first, np.float32)

    def norm_bound(self, parameters: Parameters, trained: Sequence[str]) -> float:
        """Largest L2 norm of one hospital's change of trained weights in the next round.

        Twenty times the largest mean change so far, or a hundredth of the weights' own norm where that is
        more; in the first round twenty times the weights' own norm.
        """
        if self._fixed_bound:
            return self._fixed_bound
        own = max(_norm(parameters, trained), 1.0)
        reached = max(float(self._carried["norm"]), _LEAST_NORM * own) if "norm" in self._carried else own
        return _NORM_MARGIN * reached

    def learn(
        self, names: Sequence[str], exponents: Counts, mean: Parameters, trained: Sequence[str]
    ) -> None:
        """Take from an opened sum what the next round needs.

        Args:
            names: Arrays in the sum's order.
            exponents: int64 (arrays, 48), sum of hospitals' counts.
            mean: The round's mean update.
            trained: Arrays that gradients reach.
        """
        ranges = agreed_ranges(np.asarray(exponents), _MARGIN)
        self._carried |= {
            f"range/{name}": np.array(reach, np.float32) for name, reach in zip(names, ranges, strict=True)
        }
        largest = max(_norm(mean, trained), float(self._carried.get("norm", 0.0)))
        self._carried["norm"] = np.array(largest, np.float32)


def _norm(arrays: Parameters, names: Sequence[str]) -> float:
    return float(np.sqrt(sum(np.square(arrays[name], dtype=np.float64).sum() for name in names)))
