"""Unsigned values of k bits on the wire.

Values are cut into blocks of 65,536, and k into planes of 32, 16, 8, 4, 2 and 1 bits. With k = 18,
a block is its values' low 16 bits as little-endian integers, then their top 2 bits, four values a
byte. A plane narrower than a byte is folded: of its c bytes, byte i holds value i in its lowest bits,
then value i + c, and so on. So packing and unpacking are a few passes over memory in a core's
cache, and the length is exact to less than a byte a plane and block.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from fedlens.errors import ProtocolError

Words = npt.NDArray[np.unsignedinteger]
Octets = npt.NDArray[np.uint8]

BLOCK = 1 << 16
"""Values in a block."""

MOST_BITS = 64
_WIDTHS = (32, 16, 8, 4, 2, 1)


def word_type(bits: int) -> np.dtype[np.unsignedinteger]:
    """The smallest unsigned type of at least ``bits`` bits; sums in it are right modulo 2^bits.

    Raises:
        ProtocolError: Not 1 to 64 bits.
    """
    for size in (1, 2, 4, 8):
        if 1 <= bits <= 8 * size:
            return np.dtype(f"<u{size}")
    raise ProtocolError(f"{bits} bits do not fit a word.", why=f"A word has 1 to {MOST_BITS}.")


def blocks(count: int) -> Iterator[slice]:
    """The blocks of ``count`` values, in order."""
    return (slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))


def packed_size(count: int, bits: int) -> int:
    """Bytes that ``count`` values of ``bits`` bits take."""
    whole, rest = divmod(count, BLOCK)
    return whole * _block_size(BLOCK, bits) + _block_size(rest, bits)


def pack_block(words: Words, bits: int, out: Octets) -> None:
    """Write the low ``bits`` bits of one block's words to ``out``, of their packed size."""
    start = 0
    for width, shift in _planes(bits):
        size = -(-len(words) * width // 8)
        _write_plane(words, width, shift, out[start : start + size])
        start += size


def add_block(content: Octets, bits: int, words: Words) -> None:
    """Add one block's words of ``bits`` bits, from their packed bytes, to ``words``."""
    start = 0
    for width, shift in _planes(bits):
        size = -(-len(words) * width // 8)
        _add_plane(content[start : start + size], width, shift, words)
        start += size


def _block_size(count: int, bits: int) -> int:
    return sum(-(-count * width // 8) for width, _ in _planes(bits))


def _planes(bits: int) -> Iterator[tuple[int, int]]:
    """Width and shift of each plane, from the lowest bits up."""
    shift = 0
    for width in (32, *_WIDTHS):
        if bits - shift >= width:
            yield width, shift
            shift += width


def _write_plane(words: Words, width: int, shift: int, out: Octets) -> None:
    shifted = words >> words.dtype.type(shift) if shift else words
    if width >= 8:
        # A cast to a narrower type keeps the low bits.
        np.copyto(out.view(f"<u{width // 8}"), shifted, casting="unsafe")
        return
    mask = np.uint8((1 << width) - 1)
    narrow = shifted.astype(np.uint8)
    narrow &= mask
    out[:] = narrow[: len(out)]
    for place in range(1, 8 // width):
        part = narrow[place * len(out) : (place + 1) * len(out)]
        out[: len(part)] |= part << np.uint8(place * width)


def _add_plane(content: Octets, width: int, shift: int, words: Words) -> None:
    kind = words.dtype.type
    if width >= 8:
        plane = content.view(f"<u{width // 8}").astype(words.dtype)
        if shift:
            plane <<= kind(shift)
        words += plane
        return
    # Each value's bits are moved to where they count and the rest of the byte is masked off.
    whole = content.astype(words.dtype)
    mask = kind(((1 << width) - 1) << shift)
    for place in range(8 // width):
        part = words[place * len(content) : (place + 1) * len(content)]
        move = shift - place * width
        bits = whole[: len(part)] << kind(move) if move >= 0 else whole[: len(part)] >> kind(-move)
        bits &= mask
        part += bits
