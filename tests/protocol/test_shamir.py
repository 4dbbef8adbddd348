from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlens.errors import ProtocolError
from fedlens.protocol.shamir import MOST_SHARES, inverse, join_shares, multiply, split_secret

BYTES = np.arange(256, dtype=np.uint8)


def slow_product(left: int, right: int) -> int:
    """Schoolbook product of polynomials over GF(2), then long division by x^8 + x^4 + x^3 + x + 1."""
    product = 0
    for bit in range(8):
        if right >> bit & 1:
            product ^= left << bit
    for bit in range(14, 7, -1):
        if product >> bit & 1:
            product ^= 0b1_0001_1011 << (bit - 8)
    return product


def slow_inverse(value: int) -> int:
    return next(other for other in range(256) if slow_product(value, other) == 1)


def slow_value(polynomial: Sequence[int], point: int) -> int:
    """Value of a polynomial, lowest coefficient first."""
    value, power = 0, 1
    for coefficient in polynomial:
        value ^= slow_product(coefficient, power)
        power = slow_product(power, point)
    return value


def slow_interpolation(values: dict[int, int]) -> list[int]:
    """Coefficients, lowest first, of the one polynomial of least degree through values by point."""
    polynomial = [0] * len(values)
    for point, value in values.items():
        basis = [1]
        for other in values:
            if other != point:
                scale = slow_inverse(other ^ point)
                raised = zip([0, *basis], [*basis, 0], strict=True)
                basis = [slow_product(scale, high ^ slow_product(other, low)) for high, low in raised]
        polynomial = [a ^ slow_product(value, b) for a, b in zip(polynomial, basis, strict=True)]
    return polynomial


@st.composite
def splits(draw: st.DrawFn) -> tuple[bytes, int, list[int], list[int]]:
    """Secret, threshold, indices, and those of any subset that is large enough."""
    indices = draw(st.lists(st.integers(1, MOST_SHARES), min_size=1, max_size=12, unique=True))
    threshold = draw(st.integers(1, len(indices)))
    count = draw(st.integers(threshold, len(indices)))
    subset = draw(st.permutations(indices))[:count]
    return draw(st.binary(max_size=48)), threshold, indices, subset


def test_product_of_fips_197() -> None:
    assert multiply(np.array([0x57], np.uint8), np.array([0x83], np.uint8)).tolist() == [0xC1]
    assert multiply(np.array([0x57], np.uint8), np.array([0x13], np.uint8)).tolist() == [0xFE]


def test_all_products_agree_with_long_division() -> None:
    table = multiply(BYTES[:, None], BYTES[None, :])
    assert table.dtype == np.uint8
    assert table.tolist() == [[slow_product(left, right) for right in range(256)] for left in range(256)]


def test_inverse_times_value_is_one_except_for_zero() -> None:
    assert inverse(BYTES)[0] == 0
    assert inverse(BYTES)[1:].tolist() == [slow_inverse(value) for value in range(1, 256)]


def test_field_operations_leave_their_inputs_alone() -> None:
    left, right = BYTES.copy(), BYTES[::-1].copy()
    left.flags.writeable = right.flags.writeable = False
    multiply(left, right)
    inverse(left)
    assert left.tolist() == list(range(256))


def test_products_broadcast() -> None:
    assert multiply(np.ones((3, 1), np.uint8), BYTES[:5]).shape == (3, 5)


@settings(deadline=None, max_examples=60)
@given(splits())
def test_any_subset_as_large_as_the_threshold_joins(case: tuple[bytes, int, list[int], list[int]]) -> None:
    secret, threshold, indices, subset = case
    shares = split_secret(secret, threshold=threshold, indices=indices)
    assert list(shares) == indices
    assert {len(share) for share in shares.values()} == {len(secret)}
    assert join_shares({index: shares[index] for index in subset}) == secret


@pytest.mark.parametrize("threshold", [1, 2, 3, 4, 5])
def test_every_subset_of_five_joins(threshold: int) -> None:
    secret = bytes(range(32))
    shares = split_secret(secret, threshold=threshold, indices=range(1, 6))
    for subset in combinations(range(1, 6), threshold):
        assert join_shares({index: shares[index] for index in subset}) == secret


def test_255_shares_join_at_a_threshold_of_128() -> None:
    secret = bytes(range(32))
    shares = split_secret(secret, threshold=128, indices=range(1, 256))
    assert join_shares({index: shares[index] for index in range(128, 256)}) == secret
    assert join_shares(shares) == secret


@pytest.mark.parametrize("threshold", [2, 3, 4])
def test_one_share_too_few_fits_every_secret(threshold: int) -> None:
    indices = [3, 7, 11, 200, 255]
    shares = split_secret(b"\x5a", threshold=threshold, indices=indices)
    for known in list(combinations(indices, threshold - 1))[:3]:
        polynomials = set()
        for candidate in range(256):
            points = {0: candidate} | {index: shares[index][0] for index in known}
            polynomial = slow_interpolation(points)
            coefficients = bytes(reversed(polynomial[1:]))
            again = split_secret(
                bytes([candidate]),
                threshold=threshold,
                indices=indices,
                random=lambda size, fixed=coefficients: fixed[:size],
            )
            assert all(again[index] == shares[index] for index in known)
            polynomials.add(coefficients)
        assert len(polynomials) == 256


@settings(deadline=None, max_examples=60)
@given(st.binary(min_size=1, max_size=4), st.binary(min_size=12, max_size=12))
def test_shares_are_values_of_the_polynomial_whose_constant_is_the_secret(
    secret: bytes, random: bytes
) -> None:
    shares = split_secret(secret, threshold=3, indices=[1, 2, 254], random=lambda size: random[:size])
    for place in range(len(secret)):
        polynomial = [secret[place], random[len(secret) + place], random[place]]
        for index, share in shares.items():
            assert share[place] == slow_value(polynomial, index)


def test_randomness_is_drawn_once_for_every_byte_and_degree() -> None:
    drawn = []

    def random(size: int) -> bytes:
        drawn.append(size)
        return bytes(size)

    split_secret(bytes(32), threshold=4, indices=range(1, 8), random=random)
    assert drawn == [96]


def test_too_few_shares_give_something_else() -> None:
    secret = bytes(range(32))
    shares = split_secret(secret, threshold=3, indices=[1, 2, 3])
    assert join_shares({1: shares[1], 2: shares[2]}) != secret


def test_a_false_share_gives_something_else() -> None:
    secret = bytes(range(32))
    shares = split_secret(secret, threshold=2, indices=[1, 2])
    assert join_shares({1: shares[1], 2: bytes(byte ^ 1 for byte in shares[2])}) != secret


def test_joining_leaves_the_shares_alone() -> None:
    shares = split_secret(b"secret", threshold=2, indices=[1, 2])
    before = dict(shares)
    join_shares(shares)
    assert shares == before


@pytest.mark.parametrize("threshold", [-1, 0, 4])
def test_a_threshold_out_of_range_is_refused(threshold: int) -> None:
    with pytest.raises(ProtocolError, match=f"{threshold} of 3 shares"):
        split_secret(b"x", threshold=threshold, indices=[1, 2, 3])


def test_repeated_indices_are_refused() -> None:
    with pytest.raises(ProtocolError, match=r"\[1, 2, 2\]"):
        split_secret(b"x", threshold=2, indices=[1, 2, 2])


@pytest.mark.parametrize("index", [-1, 0, 256, 300])
def test_an_index_out_of_range_is_named(index: int) -> None:
    with pytest.raises(ProtocolError, match=f"Share index {index} is not from 1 to 255"):
        split_secret(b"x", threshold=2, indices=[1, index])
    with pytest.raises(ProtocolError, match=f"Share index {index} is not from 1 to 255"):
        join_shares({1: b"a", index: b"b"})


@pytest.mark.parametrize("shares", [{}, {1: b"a", 2: b"ab"}])
def test_no_shares_or_unequal_ones_are_refused(shares: dict[int, bytes]) -> None:
    with pytest.raises(ProtocolError, match="one or more shares of one length"):
        join_shares(shares)
