"""A hospital's numbers as masked bytes, and the coordinator's running sum of them.

Values and totals are masked by the same seeds: the keystream covers the totals first, then the values
block by block. All passes over the values are made a block at a time, in a core's cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt

from fedlens.errors import ProtocolError
from fedlens.protocol.encoding import Decoder, Encoded, Encoder
from fedlens.protocol.masks import Masks
from fedlens.protocol.messages import Parameters, SumPlan
from fedlens.protocol.packing import add_block, blocks, pack_block, packed_size, word_type
from fedlens.protocol.totals import Integers, Layout

Octets = npt.NDArray[np.uint8]
Seeds = Sequence[tuple[bytes, int]]
_SEEDS = 64
_EXPONENTS = "exponents"


@dataclass(frozen=True)
class Values:
    """The floating part of a sum at one hospital.

    Attributes:
        arrays: By name; only read.
        names: Their order.
        weight: Every value is multiplied by it.
        seed: 32 bytes that rounding follows from.
    """

    arrays: Parameters = field(default_factory=dict, repr=False)
    names: Sequence[str] = ()
    weight: float = 1.0
    seed: bytes = bytes(32)

    @property
    def sizes(self) -> list[int]:
        """Elements of each array."""
        return [self.arrays[name].size for name in self.names]

    def blocks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """All values in order, a block at a time, each with its place; whole arrays are never copied."""
        flats = [self.arrays[name].reshape(-1) for name in self.names]
        ends = np.cumsum([0, *(len(flat) for flat in flats)])
        for block in blocks(int(ends[-1])):
            parts = [
                flat[max(0, block.start - start) : max(0, block.stop - start)]
                for flat, start in zip(flats, ends[:-1].tolist(), strict=True)
                if start < block.stop and block.start < start + len(flat)
            ]
            yield block.start, parts[0] if len(parts) == 1 else np.concatenate(parts)


def seal_numbers(
    values: Values, totals: dict[str, npt.ArrayLike], layout: Layout, plan: SumPlan, seeds: Seeds
) -> tuple[Octets, Octets, Encoded]:
    """Encode and mask a hospital's numbers.

    Args:
        values: Finite, of the plan's number.
        totals: By name, without ``saturated`` and ``exponents``, which are found here.
        layout: Of the totals.
        plan: Ranges and bits.
        seeds: Of all masks.

    Returns:
        Packed values, totals as bytes, and what encoding came to.

    Raises:
        ProtocolError: Values or totals are not as many as the plan says.
    """
    check_sizes(plan, values.sizes, layout)
    masks = Masks(seeds)
    encoder = Encoder(
        values.sizes,
        plan.ranges["ranges"].astype(np.float64),
        value_bits=plan.value_bits,
        ring=plan.ring_bits,
        weight=values.weight,
        seed=values.seed,
    )
    # The keystream covers the totals first, but they are complete only once the values are encoded.
    total_mask = np.zeros(layout.size, word_type(64))
    masks.add_to(total_mask)
    packed = np.empty(packed_size(plan.values, plan.ring_bits), np.uint8)
    start = 0
    for place, plain in values.blocks():
        block = encoder.encode(plain, place)
        masks.add_to(block)
        end = start + packed_size(len(block), plan.ring_bits)
        pack_block(block, plan.ring_bits, packed[start:end])
        start = end
    outcome = encoder.finish()
    if _EXPONENTS in layout.shapes:
        totals = {**totals, "saturated": outcome.saturated, _EXPONENTS: outcome.exponents}
    total_mask += layout.flatten(totals).view(np.uint64)
    return packed, total_mask.view(np.uint8), outcome


def check_sizes(plan: SumPlan, sizes: Sequence[int], layout: Layout) -> None:
    """Refuse a plan for other numbers than a hospital has.

    Args:
        plan: Verified.
        sizes: Elements of each of the hospital's arrays.
        layout: Of its totals.

    Raises:
        ProtocolError: Names both.
    """
    ranges = len(plan.ranges["ranges"])
    if (sum(sizes), layout.size, len(sizes)) != (plan.values, plan.totals, ranges):
        raise ProtocolError(
            f"The plan sums {plan.values} values of {ranges} arrays and {plan.totals} totals.",
            why=f"This network has {sum(sizes)} of {len(sizes)} and {layout.size}.",
            fix="Give every member the same study file.",
        )


@dataclass(frozen=True)
class Opened:
    """A sum over hospitals, with the masks off.

    Attributes:
        values: The sum of weighted values, in the plan's order; float32 where that holds it exactly up to
            the last multiplication, else float64.
        totals: The sum of each integer.
    """

    values: npt.NDArray[np.floating] = field(repr=False)
    totals: Integers = field(repr=False)


class RunningSum:
    """The sum of masked uploads, in the memory of one, however many are added."""

    def __init__(self, plan: SumPlan) -> None:
        self._plan = plan
        # Filled, not only reserved: the memory is then there before the uploads are.
        self._values = np.full(plan.values, 0, word_type(plan.ring_bits))
        self._totals = np.zeros(plan.totals, word_type(64))

    def check(self, values: memoryview, totals: memoryview) -> None:
        """Refuse an upload of another length.

        Raises:
            ProtocolError: Says which length was expected.
        """
        expected = (packed_size(self._plan.values, self._plan.ring_bits), 8 * self._plan.totals)
        if (len(values), len(totals)) != expected:
            raise ProtocolError(
                f"An upload has {len(values)} bytes of values and {len(totals)} of totals.",
                why=f"Under the plan it has {expected[0]} and {expected[1]}.",
            )

    def add(self, values: memoryview, totals: memoryview) -> None:
        """Add one checked upload."""
        self._totals += np.frombuffer(totals, "<u8")
        content = np.frombuffer(values, np.uint8)
        start = 0
        for part in blocks(len(self._values)):
            count = part.stop - part.start
            end = start + packed_size(count, self._plan.ring_bits)
            add_block(content[start:end], self._plan.ring_bits, self._values[part])
            start = end

    def open(self, seeds: Iterable[tuple[bytes, int]], sizes: Sequence[int], hospitals: int) -> Opened:
        """Take the masks off and decode; ends this object's use."""
        decoder = Decoder(
            sizes,
            self._plan.ranges["ranges"].astype(np.float64),
            value_bits=self._plan.value_bits,
            ring=self._plan.ring_bits,
            hospitals=hospitals,
        )
        # In place where words and values are as wide: new memory would cost as much as the decoding.
        same = self._values.dtype.itemsize == decoder.type.itemsize
        values = self._values.view(decoder.type) if same else np.empty(len(self._values), decoder.type)
        # A few seeds at a time, so that memory does not grow with the hospitals that dropped out.
        left = iter(seeds)
        while batch := list(islice(left, _SEEDS)):
            masks = Masks(batch)
            masks.add_to(self._totals)
            for part in blocks(len(values)):
                masks.add_to(self._values[part])
        for part in blocks(len(values)):
            decoder.decode(self._values[part], part.start, values[part])
        return Opened(values, self._totals.view(np.int64))
