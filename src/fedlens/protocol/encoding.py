"""Fixed point: floating updates as unsigned integers that can be summed under masks.

A value x of an array with range R becomes ``u = floor(x / step + noise) + 2^(b-1)`` with
``step = R / (2^(b-1) - 1)`` and noise uniform on [0, 1): b bits, 1 <= u < 2^b, right on average
(stochastic rounding, Gupta et al. 2015). Values beyond R are clipped and counted. The sum of m
hospitals' integers is below m 2^b, so a ring of b + ceil(log2 m) bits holds it, and
``sum x = step (sum u - m 2^(b-1))``.

Ranges are agreed from the last aggregate: every hospital adds to the sealed sum one count for each
array, in the bin of the exponent of its largest magnitude. So all see the largest exponent of the
federation, and nobody whose it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedlens.errors import ProtocolError, SettingsError
from fedlens.protocol.packing import BLOCK, Words, word_type

Floats = npt.NDArray[np.floating]
Counts = npt.NDArray[np.int64]

VALUE_BITS = (8, 12, 16, 20, 24, 32)
WIDE_BITS = 40
"""Value bits of a sum whose ranges nobody knows yet: ranges may then be a thousand times too wide."""

MOST_HOSPITALS = 255
EXPONENT_BINS = 48
_LOWEST_EXPONENT = -30
# A float32 has 24 bits: 16 for the value leave 8 for the noise.
_MOST_SINGLE_BITS = 16
_ZEROS = memoryview(bytes(4 * BLOCK + 16))


def ring_bits(value_bits: int, hospitals: int) -> int:
    """Bits of the ring that holds the sum of so many hospitals' values.

    Raises:
        SettingsError: No such value size, or too many hospitals for one sum.
    """
    if value_bits not in (*VALUE_BITS, WIDE_BITS):
        raise SettingsError(
            f"sealing.value_bits = {value_bits} is not offered.",
            fix=f"Set one of {', '.join(map(str, VALUE_BITS))}.",
        )
    if not 1 <= hospitals <= MOST_HOSPITALS:
        raise SettingsError(
            f"{hospitals} hospitals cannot be summed in one sealed round.",
            why=f"Shares of keys have indices from 1 to {MOST_HOSPITALS}.",
            fix=f"Lower federation.participation so that at most {MOST_HOSPITALS} take part.",
        )
    return value_bits + math.ceil(math.log2(hospitals))


def check_capacity(value_bits: int, ring: int, hospitals: int) -> None:
    """Refuse any ring but the narrowest in which the sum does not wrap around.

    Raises:
        ProtocolError: Computes how many bits would do, and which value size would fit.
    """
    needed = ring_bits(value_bits, hospitals)
    if ring == needed:
        return
    fitting = [bits for bits in VALUE_BITS if ring_bits(bits, hospitals) <= ring]
    mend = f"; within {ring} bits, sealing.value_bits = {fitting[-1]} would fit" if fitting else ""
    raise ProtocolError(
        f"{hospitals} hospitals' values of {value_bits} bits do not go with a ring of {ring} bits.",
        why=f"Their sum needs just {needed} bits.",
        fix=f"Set the ring to {needed} bits{mend if ring < needed else ''}.",
    )


@dataclass(frozen=True)
class Encoded:
    """What came of encoding one hospital's values.

    Attributes:
        saturated: Values beyond their array's range, which were clipped.
        exponents: int64 (arrays, 48); each row has a single 1, in the bin of the exponent of the
            array's largest magnitude.
    """

    saturated: int
    exponents: Counts


class Encoder:
    """Turns a flat vector of float32 into words, a block at a time.

    Args:
        sizes: Elements of each array, in the vector's order.
        ranges: Largest magnitude of each array that is not clipped, > 0.
        value_bits: One of ``VALUE_BITS``.
        ring: Bits of the ring; picks the words' type.
        weight: Every value is multiplied by it first.
        seed: 32 bytes that the rounding noise follows from. It protects nothing: it makes a repeated
            round the same to the bit.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        ranges: npt.NDArray[np.float64],
        *,
        value_bits: int,
        ring: int,
        weight: float,
        seed: bytes,
    ) -> None:
        self._ends = np.cumsum(sizes)
        self._steps = steps(ranges, value_bits)
        self._factors = weight / self._steps
        self._offset = float(1 << (value_bits - 1))
        self._most = float((1 << value_bits) - 1)
        self._word = word_type(ring)
        # The widest integers that processors convert to in one instruction.
        self._signed = np.dtype(np.int32 if value_bits < 31 else np.int64)
        self._single = value_bits <= _MOST_SINGLE_BITS
        self._width = 1 if value_bits == _MOST_SINGLE_BITS else 2 if self._single else 4
        self._work: Floats = np.empty(BLOCK, np.float32 if self._single else np.float64)
        self._noise: Floats = np.empty_like(self._work)
        self._drawn = bytearray(4 * BLOCK + 16)
        self._cipher = Cipher(algorithms.AES256(seed), modes.CTR(bytes(16))).encryptor()
        self._largest = np.zeros(len(sizes))
        self._saturated = 0

    def encode(self, values: Floats, start: int) -> Words:
        """Words of one block of the vector; blocks must come in order.

        Args:
            values: The block's values, float32.
            start: Its place in the vector.
        """
        work = self._work[: len(values)]
        lowest = highest = 0.0
        for array, part in parts_of(self._ends, start, len(values)):
            own = np.multiply(values[part], work.dtype.type(self._factors[array]), out=work[part])
            low, high = float(own.min()), float(own.max())
            self._largest[array] = max(self._largest[array], -low, high)
            lowest, highest = min(lowest, low), max(highest, high)
        np.add(work, self._draw(len(values)), out=work)
        # One step to spare: the addition rounds.
        if lowest + self._offset < 2 or highest + self._offset >= self._most - 1:
            self._clip(work)
        signed = work.astype(self._signed)
        same = signed.dtype.itemsize == self._word.itemsize
        return signed.view(self._word) if same else signed.astype(self._word)

    def finish(self) -> Encoded:
        """What the whole vector came to."""
        return Encoded(self._saturated, exponent_counts(self._largest * self._steps))

    def _draw(self, count: int) -> Floats:
        """Noise on [0, 1) plus the offset, so that values become positive in the same addition.

        Beside 16-bit values a byte, since a float32 that holds the offset has eight bits to spare: finer
        noise would be rounded up to 1 now and then, and values to the right of where they are.
        """
        width = self._width
        size = -(-count * width // 16) * 16
        self._cipher.update_into(_ZEROS[:size], self._drawn)
        noise = self._noise[:count]
        np.copyto(noise, np.frombuffer(self._drawn, f"<u{width}", count))
        noise *= 2.0 ** (-8 * width)
        noise += self._offset
        return noise

    def _clip(self, work: Floats) -> None:
        outside = (work < 1) | (work >= self._most + 1)
        self._saturated += int(np.count_nonzero(outside))
        np.clip(work, 1, self._most, out=work)


class Decoder:
    """Turns the sum of hospitals' words into the sum of their values, a block at a time.

    Args:
        sizes: Elements of each array.
        ranges: As for the encoder.
        value_bits: As for the encoder.
        ring: As for the encoder.
        hospitals: How many were summed.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        ranges: npt.NDArray[np.float64],
        *,
        value_bits: int,
        ring: int,
        hospitals: int,
    ) -> None:
        self._ends = np.cumsum(sizes)
        self._steps = steps(ranges, value_bits)
        self._mask = word_type(ring).type((1 << ring) - 1)
        self._offset = hospitals << (value_bits - 1)
        # Integers of up to 24 bits are exact in single precision.
        self.type: np.dtype[np.floating] = np.dtype(np.float32 if ring <= 24 else np.float64)

    def decode(self, words: Words, start: int, out: Floats) -> None:
        """Write one block's values to ``out``.

        Args:
            words: Right modulo 2^ring; overwritten.
            start: The block's place in the vector.
            out: Of :attr:`type`, as long as ``words``.
        """
        words &= self._mask
        if out.dtype == np.float32:
            np.copyto(out, words.astype(np.int32) - self._offset, casting="unsafe")
        else:
            np.subtract(words, float(self._offset), out=out)
        for array, part in parts_of(self._ends, start, len(words)):
            out[part] *= out.dtype.type(self._steps[array])


def parts_of(ends: npt.NDArray[np.int64], start: int, count: int) -> list[tuple[int, slice]]:
    """Arrays in a block of a vector, each with its place in the block.

    Args:
        ends: Where each array ends in the vector.
        start: Where the block starts.
        count: Its length.
    """
    array = int(np.searchsorted(ends, start, side="right"))
    parts = []
    begin = 0
    while begin < count:
        end = min(count, int(ends[array]) - start)
        if end > begin:
            parts.append((array, slice(begin, end)))
        begin, array = end, array + 1
    return parts


def steps(ranges: npt.NDArray[np.float64], value_bits: int) -> npt.NDArray[np.float64]:
    """Distance between neighbouring values of each array."""
    return np.asarray(ranges, np.float64) / ((1 << (value_bits - 1)) - 1)


def exponent_counts(largest: npt.NDArray[np.float64]) -> Counts:
    """One count for each array, in the bin of the exponent of its largest magnitude, int64 (arrays, 48)."""
    _, exponents = np.frexp(largest)
    bins = np.clip(np.where(largest > 0, exponents - _LOWEST_EXPONENT, 0), 0, EXPONENT_BINS - 1)
    counts = np.zeros((len(largest), EXPONENT_BINS), np.int64)
    counts[np.arange(len(largest)), bins] = 1
    return counts


def agreed_ranges(counts: Counts, margin: float) -> npt.NDArray[np.float64]:
    """Ranges for the next round from the federation's exponents.

    Args:
        counts: Sum over hospitals of :func:`exponent_counts`; at least one in every row.
        margin: How much larger the next values may be than the largest now.
    """
    highest = EXPONENT_BINS - 1 - np.argmax(counts[:, ::-1] > 0, axis=1)
    return np.asarray(margin * np.exp2((highest + _LOWEST_EXPONENT).astype(np.float64)))
