from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlens.errors import ProtocolError, SettingsError
from fedlens.protocol.encoding import (
    EXPONENT_BINS,
    MOST_HOSPITALS,
    VALUE_BITS,
    WIDE_BITS,
    Decoder,
    Encoded,
    Encoder,
    Floats,
    Words,
    agreed_ranges,
    check_capacity,
    exponent_counts,
    ring_bits,
    steps,
)
from fedlens.protocol.packing import BLOCK, blocks

SEED = bytes(range(32))
ALL_BITS = (*VALUE_BITS, WIDE_BITS)
# Up to 16 bits, values are rounded in float32: its 24 bits leave an error of 2^-8 steps at most.
SINGLE_ERROR = 2.0**-7
# How often noise, which has more bits here than a sum can hold, is rounded up to a whole step.
NOISE_OF_ONE = {12: 2.0**-12, 32: 2.0**-19, 40: 2.0**-12}
# Powers of two, as agreed ranges are; ranges by which the product comes out above and below; the ends.
POWERS = (1.0, 4.0, 2.0**-60, 2.0**60)
RANGES = (*POWERS, 0.3, 1e-3, 1.7e-9, 0.6348933577537537, 0.8184808492660522, 0.9079267978668213, 2.5, 6e7)


def encode(
    values: Floats,
    sizes: Sequence[int],
    ranges: Sequence[float],
    *,
    value_bits: int = 16,
    hospitals: int = 1,
    weight: float = 1.0,
    seed: bytes = SEED,
) -> tuple[Words, Encoded]:
    encoder = Encoder(
        sizes,
        np.array(ranges),
        value_bits=value_bits,
        ring=ring_bits(value_bits, hospitals),
        weight=weight,
        seed=seed,
    )
    words = [encoder.encode(values[part], part.start) for part in blocks(len(values))]
    return np.concatenate(words), encoder.finish()


def decode(
    total: Words, sizes: Sequence[int], ranges: Sequence[float], *, value_bits: int = 16, hospitals: int = 1
) -> npt.NDArray[np.float64]:
    ring = ring_bits(value_bits, hospitals)
    decoder = Decoder(sizes, np.array(ranges), value_bits=value_bits, ring=ring, hospitals=hospitals)
    values = np.full(len(total), np.nan)
    for part in blocks(len(total)):
        decoder.decode(total[part], part.start, values[part])
    return values


def signed(words: Words, value_bits: int) -> npt.NDArray[np.int64]:
    return words.astype(np.int64) - (1 << (value_bits - 1))


def random_values(count: int, most: float, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-most, most, count).astype(np.float32)


@pytest.mark.parametrize("value_bits", ALL_BITS)
def test_the_ring_is_the_smallest_that_holds_the_largest_sum(value_bits: int) -> None:
    for hospitals in range(1, MOST_HOSPITALS + 1):
        largest = hospitals * ((1 << value_bits) - 1)
        assert largest.bit_length() == ring_bits(value_bits, hospitals)


@pytest.mark.parametrize("value_bits", [-8, 0, 7, 10, 33, 64])
def test_value_sizes_that_are_not_offered_are_named_with_those_that_are(value_bits: int) -> None:
    with pytest.raises(SettingsError, match=rf"value_bits = {value_bits} .*8, 12, 16, 20, 24, 32"):
        ring_bits(value_bits, 3)


@pytest.mark.parametrize("hospitals", [-1, 0, 256, 10_000])
def test_more_hospitals_than_shares_have_indices_are_refused(hospitals: int) -> None:
    with pytest.raises(SettingsError, match=rf"{hospitals} hospitals .* at most 255"):
        ring_bits(16, hospitals)


@pytest.mark.parametrize("value_bits", ALL_BITS)
@pytest.mark.parametrize("hospitals", [1, 2, 3, 4, 5, 128, 129, 255])
def test_only_the_ring_that_is_needed_is_accepted(value_bits: int, hospitals: int) -> None:
    needed = ring_bits(value_bits, hospitals)
    check_capacity(value_bits, needed, hospitals)
    for ring in (needed - 1, needed + 1):
        with pytest.raises(ProtocolError, match=f"ring of {ring} bits. Their sum needs just {needed} bits"):
            check_capacity(value_bits, ring, hospitals)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(ALL_BITS), st.integers(1, 64), st.integers(1, MOST_HOSPITALS))
def test_the_mend_of_a_wrong_ring_is_computed(value_bits: int, ring: int, hospitals: int) -> None:
    needed = ring_bits(value_bits, hospitals)
    if ring == needed:
        return
    with pytest.raises(ProtocolError) as refused:
        check_capacity(value_bits, ring, hospitals)
    assert refused.value.what.startswith(f"{hospitals} hospitals' values of {value_bits} bits")
    mended = re.search(r"[Ss]et (?:it|the ring) to (\d+) bits", refused.value.fix)
    assert mended is not None
    check_capacity(value_bits, int(mended[1]), hospitals)
    smaller = re.search(r"value_bits = (\d+)", refused.value.fix)
    fitting = [bits for bits in VALUE_BITS if ring_bits(bits, hospitals) <= ring]
    if ring < needed and fitting:
        assert smaller is not None
        assert int(smaller[1]) == fitting[-1] < value_bits
    else:
        assert smaller is None


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(ALL_BITS),
    st.floats(2.0**-20, 200, width=32),
    st.integers(0, 2**32),
    st.integers(1, 300),
)
def test_every_value_is_at_most_one_step_off(value_bits: int, most: float, seed: int, count: int) -> None:
    step = steps(np.array([most]), value_bits)[0]
    values = random_values(count, most, seed)
    words, _ = encode(values, [count], [most], value_bits=value_bits)
    error = np.abs(signed(words, value_bits) - values.astype(np.float64) / step)
    assert error.max() <= 1 + SINGLE_ERROR


@pytest.mark.parametrize("value_bits", ALL_BITS)
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.8125])
@pytest.mark.parametrize("whole", [-100, 0, 100])
def test_rounding_is_right_on_average(value_bits: int, fraction: float, whole: int) -> None:
    count = 4 * BLOCK
    most = float((1 << (value_bits - 1)) - 1)
    value = np.float32(whole + fraction)
    words, _ = encode(np.full(count, value), [count], [most], value_bits=value_bits)
    deviation = 5 * 0.5 / count**0.5
    assert abs(signed(words, value_bits).mean() - float(value)) < deviation + 2.0**-8


def test_rounding_up_is_as_likely_as_the_fraction_is_large() -> None:
    values = np.full(BLOCK, np.float32(3.25))
    words, _ = encode(values, [BLOCK], [127.0], value_bits=8)
    assert set(signed(words, 8).tolist()) == {3, 4}
    assert abs(np.mean(signed(words, 8) == 4) - 0.25) < 0.01


@pytest.mark.parametrize("value_bits", ALL_BITS)
def test_values_beyond_the_range_are_clipped_and_counted(value_bits: int) -> None:
    most = 0.5
    inside = random_values(1000, most - 2 * float(steps(np.array([most]), value_bits)[0]), 1)
    outside = np.array([0.6, -0.6, 1e30, -1e30, 1, -1, 100], np.float32)
    values = np.concatenate([inside, outside])
    words, outcome = encode(values, [len(values)], [most], value_bits=value_bits)
    assert outcome.saturated == 7
    largest = (1 << (value_bits - 1)) - 1
    assert signed(words[1000:], value_bits).tolist() == [largest, -largest] * 3 + [largest]
    assert words.min() >= 1
    assert words.max() < 1 << value_bits


@pytest.mark.parametrize("value_bits", ALL_BITS)
def test_values_at_the_range_keep_its_size(value_bits: int) -> None:
    values = np.array([0.25, -0.25] * 500, np.float32)
    words, _ = encode(values, [1000], [0.25], value_bits=value_bits)
    error = signed(words, value_bits) * steps(np.array([0.25]), value_bits)[0] - values
    assert np.abs(error).max() <= (1 + SINGLE_ERROR) * steps(np.array([0.25]), value_bits)[0]


def at_the_border(most: float) -> list[tuple[np.float32, bool]]:
    """The range, its neighbours and both signs, each with whether it lies within."""
    edge = np.float32(most)
    within = [(edge, True), (np.nextafter(edge, np.float32(0)), True)]
    return [(sign * value, inside) for value, inside in within for sign in (1, -1)] + [
        (sign * np.nextafter(edge, np.float32(np.inf)), False) for sign in (1, -1)
    ]


@pytest.mark.parametrize("value_bits", ALL_BITS)
@pytest.mark.parametrize("most", RANGES)
@pytest.mark.parametrize("hospitals", [1, 200])
def test_no_word_at_the_border_of_its_range_leaves_its_bits(
    value_bits: int, most: float, hospitals: int
) -> None:
    most = float(np.float32(most))
    step = float(steps(np.array([most]), value_bits)[0])
    for value, _ in at_the_border(most):
        words, _ = encode(
            np.full(2 * BLOCK, value), [2 * BLOCK], [most], value_bits=value_bits, hospitals=hospitals
        )
        assert words.min() >= 1
        assert int(words.max()) < 1 << value_bits
        error = np.abs(signed(words, value_bits) * step - np.clip(float(value), -most, most))
        assert error.max() <= (1 + SINGLE_ERROR) * step


@pytest.mark.parametrize("value_bits", ALL_BITS)
def test_no_word_leaves_its_bits_just_where_clipping_begins(value_bits: int) -> None:
    most = float((1 << (value_bits - 1)) - 1)
    apart = np.float32(2.0 ** max(-9, value_bits - 25))
    for place in range(0, 1200, 7):
        for sign in (1, -1):
            value = np.float32(sign) * (np.float32(most) - place * apart)
            words, _ = encode(np.full(2048, value, np.float32), [2048], [most], value_bits=value_bits)
            assert words.min() >= 1
            assert int(words.max()) < 1 << value_bits


@pytest.mark.parametrize("value_bits", ALL_BITS)
@pytest.mark.parametrize("most", POWERS)
def test_values_just_at_an_agreed_range_are_no_saturation(value_bits: int, most: float) -> None:
    count = 16 * BLOCK
    for value, inside in at_the_border(most):
        if inside:
            _, outcome = encode(np.full(count, value), [count], [most], value_bits=value_bits)
            assert outcome.saturated <= NOISE_OF_ONE.get(value_bits, 0) * count


@pytest.mark.parametrize("value_bits", ALL_BITS)
@pytest.mark.parametrize("most", RANGES)
def test_values_just_at_any_range_are_clipped_by_rounding_alone(value_bits: int, most: float) -> None:
    most, count = float(np.float32(most)), 4 * BLOCK
    for value, inside in at_the_border(most):
        if inside:
            _, outcome = encode(np.full(count, value), [count], [most], value_bits=value_bits)
            # A product in single precision is up to 2^-9 of a step too large.
            rounded = 2.0**-7 if value_bits <= 16 else 0
            assert outcome.saturated <= (rounded + NOISE_OF_ONE.get(value_bits, 0)) * count


@pytest.mark.parametrize("value_bits", ALL_BITS)
def test_zero_stays_zero(value_bits: int) -> None:
    count = 4 * BLOCK
    words, outcome = encode(np.zeros(count, np.float32), [count], [1.0], value_bits=value_bits)
    assert np.count_nonzero(signed(words, value_bits)) <= NOISE_OF_ONE.get(value_bits, 0) * count
    assert outcome.saturated == 0


@pytest.mark.parametrize("value_bits", [12, 16])
@pytest.mark.parametrize("reach", [1.0, 8.0])
def test_near_zero_rounding_is_right_on_average_to_a_thousandth_of_a_step(
    value_bits: int, reach: float
) -> None:
    count, rng = 256 * BLOCK, np.random.default_rng(value_bits)
    most = float((1 << (value_bits - 1)) - 1)
    encoder = Encoder(
        [count], np.array([most]), value_bits=value_bits, ring=value_bits, weight=1.0, seed=SEED
    )
    errors = {1: 0.0, -1: 0.0}
    for place in range(0, count, 2 * BLOCK):
        for half, sign in enumerate(errors):
            values = (sign * reach * rng.random(BLOCK, np.float32)).astype(np.float32)
            words = encoder.encode(values, place + half * BLOCK)
            errors[sign] += float((signed(words, value_bits) - values.astype(np.float64)).sum())
    assert abs(errors[1] + errors[-1]) / count < 2.0**-10
    # Of either sign alone, the grain of noise and sums shows: 2^-9 of a step.
    assert all(abs(error) / (count / 2) < 2.0**-9 for error in errors.values())


@pytest.mark.parametrize("value_bits", ALL_BITS)
def test_saturation_is_counted_over_all_blocks(value_bits: int) -> None:
    values = np.zeros(2 * BLOCK + 10, np.float32)
    values[[0, BLOCK - 1, BLOCK, 2 * BLOCK + 9]] = 2
    _, outcome = encode(values, [len(values)], [1.0], value_bits=value_bits)
    assert outcome.saturated == 4


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(ALL_BITS),
    st.lists(st.integers(0, 20), min_size=1, max_size=5).filter(any),
    st.integers(1, 12),
    st.integers(0, 2**32),
)
def test_the_decoded_sum_is_the_sum_to_a_step_for_every_hospital(
    value_bits: int, sizes: list[int], hospitals: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    ranges = 2.0 ** rng.integers(-15, 8, len(sizes))
    limits = np.repeat(ranges, sizes)
    total, expected = 0, np.zeros(sum(sizes))
    for _ in range(hospitals):
        weight = float(rng.uniform(0.1, 1))
        values = (rng.uniform(-1, 1, sum(sizes)) * limits / weight * (1 - 2.0**-16)).astype(np.float32)
        words, _ = encode(
            values,
            sizes,
            list(ranges),
            value_bits=value_bits,
            hospitals=hospitals,
            weight=weight,
            seed=rng.bytes(32),
        )
        total = words + total
        expected += weight * values.astype(np.float64)
    decoded = decode(total, sizes, list(ranges), value_bits=value_bits, hospitals=hospitals)
    allowed = hospitals * (1 + SINGLE_ERROR) * np.repeat(steps(ranges, value_bits), sizes)
    assert (np.abs(decoded - expected) <= allowed).all()


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(ALL_BITS), st.integers(1, 255), st.data())
def test_decoding_is_exact_and_modulo_the_ring(value_bits: int, hospitals: int, data: st.DataObject) -> None:
    ring = ring_bits(value_bits, hospitals)
    most = (1 << (value_bits - 1)) - 1
    wholes = data.draw(st.lists(st.integers(-most * hospitals, most * hospitals), min_size=1, max_size=8))
    words = [whole + hospitals * (1 << (value_bits - 1)) for whole in wholes]
    assert all(0 < word < 1 << ring for word in words)
    width = next(size for size in (8, 16, 32, 64) if ring <= size)
    wrapped = [(word + (data.draw(st.integers(0, 2**64)) << ring)) % (1 << width) for word in words]
    decoded = decode(
        np.array(wrapped, f"u{width // 8}"),
        [len(words)],
        [float(most)],
        value_bits=value_bits,
        hospitals=hospitals,
    )
    assert decoded.tolist() == [float(whole) for whole in wholes]


def test_the_largest_and_the_smallest_sum_of_255_hospitals_fit_the_ring() -> None:
    for value_bits in ALL_BITS:
        for sign in (1.0, -1.0):
            words, _ = encode(
                np.full(3, sign * 9, np.float32), [3], [1.0], value_bits=value_bits, hospitals=255
            )
            total = words * words.dtype.type(255)
            decoded = decode(total, [3], [1.0], value_bits=value_bits, hospitals=255)
            assert np.allclose(decoded, sign * 255, rtol=1e-12)


def test_arrays_keep_their_own_ranges_across_blocks() -> None:
    sizes = [0, 5, BLOCK - 3, 0, 0, BLOCK + 1, 1, 0]
    ranges = np.array([1.0, 1e-3, 100.0, 1.0, 1.0, 1e-2, 7.0, 1.0])
    limits = np.repeat(ranges, sizes)
    values = (random_values(sum(sizes), 0.99) * limits).astype(np.float32)
    words, outcome = encode(values, sizes, list(ranges))
    decoded = decode(words.copy(), sizes, list(ranges))
    assert outcome.saturated == 0
    assert (np.abs(decoded - values) <= (1 + SINGLE_ERROR) * np.repeat(steps(ranges, 16), sizes)).all()
    arrays = np.split(np.abs(values.astype(np.float64)), np.cumsum(sizes)[:-1])
    largest = np.array([array.max(initial=0) for array in arrays])
    assert outcome.exponents.tolist() == exponent_counts(largest).tolist()


@pytest.mark.parametrize("value_bits", ALL_BITS)
def test_the_same_seed_gives_the_same_words_and_another_gives_others(value_bits: int) -> None:
    values = random_values(BLOCK + 100, 0.9)
    arguments: dict[str, Any] = {"sizes": [len(values)], "ranges": [1.0], "value_bits": value_bits}
    words, outcome = encode(values, **arguments)
    again, outcome_again = encode(values, **arguments)
    other, _ = encode(values, **arguments, seed=bytes(32))
    assert np.array_equal(words, again)
    assert outcome.saturated == outcome_again.saturated
    assert not np.array_equal(words, other)
    assert np.abs(words.astype(np.int64) - other.astype(np.int64)).max() <= 1


@pytest.mark.parametrize("value_bits", ALL_BITS)
def test_blocks_are_rounded_with_fresh_noise(value_bits: int) -> None:
    most = float((1 << (value_bits - 1)) - 1)
    words, _ = encode(
        np.full(2 * BLOCK, np.float32(0.5)), [2 * BLOCK], [most], value_bits=value_bits, hospitals=3
    )
    assert not np.array_equal(words[:BLOCK], words[BLOCK:])


def test_weights_multiply_values_before_they_are_held_against_the_range() -> None:
    words, outcome = encode(np.array([4.0, -4.0, 12.0], np.float32), [3], [1.5], value_bits=12, weight=0.25)
    assert outcome.saturated == 1
    step = steps(np.array([1.5]), 12)[0]
    assert np.allclose(signed(words, 12) * step, [1.0, -1.0, 1.5], atol=(1 + SINGLE_ERROR) * step)
    assert outcome.exponents.tolist() == exponent_counts(np.array([3.0])).tolist()


@pytest.mark.parametrize("value_bits", ALL_BITS)
def test_values_are_only_read(value_bits: int) -> None:
    values = random_values(100, 2.0)
    before = values.copy()
    values.flags.writeable = False
    encode(values, [100], [1.0], value_bits=value_bits)
    assert np.array_equal(values, before)


def test_steps_divide_the_range_evenly() -> None:
    assert steps(np.array([127.0, 254.0]), 8).tolist() == [1.0, 2.0]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.lists(st.floats(0, 2.0**17 - 1, width=32), min_size=3, max_size=3),
        min_size=1,
        max_size=10,
    ),
    st.floats(1, 8),
)
def test_agreed_ranges_cover_the_largest_magnitude_with_the_margin(
    largest: list[list[float]], margin: float
) -> None:
    hospitals = np.array(largest)
    counts = sum(exponent_counts(row) for row in hospitals)
    ranges = agreed_ranges(counts, margin)
    highest = hospitals.max(axis=0)
    assert (ranges >= margin * highest).all()
    assert (ranges <= 2 * margin * np.maximum(highest, 2.0**-31)).all()


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0, 2.0**127, width=32), max_size=6))
def test_every_array_counts_once(largest: list[float]) -> None:
    counts = exponent_counts(np.array(largest, np.float64))
    assert counts.shape == (len(largest), EXPONENT_BINS)
    assert counts.dtype == np.int64
    assert counts.sum(axis=1).tolist() == [1] * len(largest)
    assert counts.min(initial=0) == 0


def test_bins_are_powers_of_two_with_open_ends() -> None:
    assert EXPONENT_BINS == 48
    inside = 2.0 ** np.arange(-31, 17)
    assert np.argmax(exponent_counts(inside), axis=1).tolist() == list(range(EXPONENT_BINS))
    just_below = np.nextafter(2.0 ** np.arange(-30, 18), 0)
    assert np.argmax(exponent_counts(just_below), axis=1).tolist() == list(range(EXPONENT_BINS))
    ends = np.array([0.0, 2.0**-40, 2.0**17, 2.0**100])
    assert np.argmax(exponent_counts(ends), axis=1).tolist() == [0, 0, 47, 47]
    assert agreed_ranges(exponent_counts(inside), 1.0).tolist() == (2 * inside).tolist()


def test_one_large_hospital_sets_the_range_for_all() -> None:
    counts = 254 * exponent_counts(np.array([0.01])) + exponent_counts(np.array([3.0]))
    assert agreed_ranges(counts, 1.0).tolist() == [4.0]


def test_values_within_ranges_agreed_from_them_do_not_saturate() -> None:
    values = np.concatenate([random_values(50, 0.013), random_values(50, 20.0)])
    _, before = encode(values, [50, 50], [1e-4, 1e-4])
    assert before.saturated > 0
    ranges = agreed_ranges(before.exponents, 2.0)
    _, after = encode(values, [50, 50], list(ranges))
    assert after.saturated == 0
    assert after.exponents.tolist() == before.exponents.tolist()
