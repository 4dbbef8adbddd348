from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlens.errors import ProtocolError
from fedlens.protocol.packing import (
    BLOCK,
    Octets,
    Words,
    add_block,
    blocks,
    pack_block,
    packed_size,
    word_type,
)

ALL_BITS = range(1, 65)
BORDERS = (65535, 65536, 65537)


def widths(bits: int) -> list[int]:
    """Planes from the lowest bits up."""
    found = []
    for width in (32, 32, 16, 8, 4, 2, 1):
        if width <= bits - sum(found):
            found.append(width)
    return found


def random_words(count: int, bits: int, seed: int = 0) -> Words:
    drawn = np.random.default_rng(seed).integers(0, 1 << 64, count, np.uint64, endpoint=False)
    return (drawn >> np.uint64(64 - bits)).astype(word_type(bits))


def pack(words: Words, bits: int) -> Octets:
    out = np.full(packed_size(len(words), bits), 0xA5, np.uint8)
    start = 0
    for part in blocks(len(words)):
        end = start + packed_size(part.stop - part.start, bits)
        pack_block(words[part], bits, out[start:end])
        start = end
    assert start == len(out)
    return out


def unpack(content: Octets, count: int, bits: int) -> Words:
    words = np.zeros(count, word_type(bits))
    start = 0
    for part in blocks(count):
        end = start + packed_size(part.stop - part.start, bits)
        add_block(content[start:end], bits, words[part])
        start = end
    return words


def slow_pack(words: Words, bits: int) -> bytes:
    """One block as the module's text describes it, value by value."""
    out = b""
    shift = 0
    for width in widths(bits):
        plane = [(int(word) >> shift) % (1 << width) for word in words]
        if width >= 8:
            out += b"".join(value.to_bytes(width // 8, "little") for value in plane)
        else:
            size = -(-len(words) * width // 8)
            folded = [0] * size
            for place, value in enumerate(plane):
                folded[place % size] |= value << (place // size * width)
            out += bytes(folded)
        shift += width
    return out


@pytest.mark.parametrize("bits", ALL_BITS)
def test_words_come_back_at_block_borders(bits: int) -> None:
    whole = random_words(max(BORDERS), bits, seed=bits)
    for count in BORDERS:
        words = whole[:count]
        assert np.array_equal(unpack(pack(words, bits), count, bits), words)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 64), st.integers(0, 200), st.integers(0, 2**32))
def test_words_come_back_and_lie_where_the_format_says(bits: int, count: int, seed: int) -> None:
    words = random_words(count, bits, seed)
    content = pack(words, bits)
    assert content.tobytes() == slow_pack(words, bits)
    assert np.array_equal(unpack(content, count, bits), words)


@pytest.mark.parametrize("bits", ALL_BITS)
def test_extreme_words_come_back(bits: int) -> None:
    words = np.array([0, (1 << bits) - 1, 1, (1 << bits) - 1, 0], word_type(bits))
    assert np.array_equal(unpack(pack(words, bits), 5, bits), words)


def test_eighteen_bits_are_a_plane_of_sixteen_and_a_folded_one_of_two() -> None:
    words = np.array([0x1_2345, 0x2_0001, 0x3_FFFF, 0x0_0000, 0x1_8000], np.uint32)
    low = bytes.fromhex("4523 0100 ffff 0000 0080")
    assert pack(words, 18).tobytes() == low + bytes([0b01_11_01, 0b00_10])


@pytest.mark.parametrize("bits", ALL_BITS)
def test_the_packed_size_is_exact_to_less_than_a_byte_a_plane_and_block(bits: int) -> None:
    for count in (0, 1, 7, 8, 9, 1000, *BORDERS, 3 * BLOCK + 5):
        whole, rest = divmod(count, BLOCK)
        expected = sum(-(-size * width // 8) for size in (*[BLOCK] * whole, rest) for width in widths(bits))
        assert packed_size(count, bits) == expected
        spare = 8 * packed_size(count, bits) - count * bits
        assert 0 <= spare < 8 * len(widths(bits)) * max(1, len(list(blocks(count))))


def test_a_full_block_wastes_nothing() -> None:
    assert all(packed_size(BLOCK, bits) == BLOCK * bits // 8 for bits in ALL_BITS)


@pytest.mark.parametrize("bits", [1, 7, 13, 18, 33, 63])
def test_bits_above_those_packed_do_not_count(bits: int) -> None:
    words = random_words(100, bits).astype(word_type(64))
    dirty = words | np.uint64(1 << 63)
    assert np.array_equal(pack(dirty, bits), pack(words, bits))


@pytest.mark.parametrize("bits", [3, 16, 18, 40])
def test_packing_at_odd_addresses_changes_nothing(bits: int) -> None:
    words = random_words(101, bits)
    room = np.zeros(packed_size(101, bits) + 1, np.uint8)
    pack_block(words, bits, room[1:])
    assert np.array_equal(room[1:], pack(words, bits))
    assert np.array_equal(unpack(room[1:], 101, bits), words)


@pytest.mark.parametrize("bits", ALL_BITS)
def test_blocks_are_added_modulo_the_words_size(bits: int) -> None:
    first, second = random_words(300, bits, 1), random_words(300, bits, 2)
    total = first.copy()
    add_block(pack(second, bits), bits, total)
    assert np.array_equal(total, first + second)


@pytest.mark.parametrize("bits", [5, 18, 64])
def test_inputs_are_only_read(bits: int) -> None:
    words = random_words(50, bits)
    content = pack(words, bits)
    before, packed_before = words.copy(), content.copy()
    words.flags.writeable = content.flags.writeable = False
    pack_block(words, bits, np.empty(len(content), np.uint8))
    unpack(content, 50, bits)
    assert np.array_equal(words, before)
    assert np.array_equal(content, packed_before)


def test_word_types_are_the_smallest_that_hold_the_bits() -> None:
    sizes = {bits: word_type(bits).itemsize for bits in ALL_BITS}
    assert sizes == {bits: next(size for size in (1, 2, 4, 8) if bits <= 8 * size) for bits in ALL_BITS}
    assert {word_type(bits).kind for bits in ALL_BITS} == {"u"}


@pytest.mark.parametrize("bits", [-1, 0, 65])
def test_word_sizes_that_do_not_exist_are_named(bits: int) -> None:
    with pytest.raises(ProtocolError, match=f"{bits} bits do not fit a word. A word has 1 to 64"):
        word_type(bits)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 5 * BLOCK))
def test_blocks_cover_all_values_in_order(count: int) -> None:
    parts = list(blocks(count))
    assert [part.start for part in parts] == list(range(0, count, BLOCK))
    assert [part.stop for part in parts[:-1]] == [part.start for part in parts[1:]]
    assert (parts[-1].stop if parts else 0) == count
