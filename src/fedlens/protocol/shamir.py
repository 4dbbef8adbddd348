"""Shamir's secret sharing (Shamir 1979) over GF(2^8), byte by byte, for secrets of any length.

The field is that of AES (FIPS 197, section 4: x^8 + x^4 + x^3 + x + 1), the construction that of
SLIP-39 and HashiCorp Vault: one random polynomial for every byte of the secret, whose value at
0 is that byte; a share is the polynomials' values at one index from 1 to 255. Fewer shares than
the threshold say nothing about the secret, whatever computer looks at them.

Products are eight shifts and masked additions over whole arrays: no branch and no look-up depends
on a secret byte.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fedlens.errors import ProtocolError

Random = Callable[[int], bytes]
"""So many bytes of good randomness: ``os.urandom``, or fixed bytes for test vectors."""

Octets = npt.NDArray[np.uint8]

MOST_SHARES = 255
_REDUCTION = 0x1B


def split_secret(
    secret: bytes, *, threshold: int, indices: Sequence[int], random: Random = os.urandom
) -> dict[int, bytes]:
    """Shares of a secret by index; any ``threshold`` of them give it back.

    Args:
        secret: Any bytes.
        threshold: 1 to the number of shares.
        indices: Distinct, each 1..255.
        random: Source of the polynomials' coefficients.

    Raises:
        ProtocolError: Indices or threshold out of range.
    """
    if not 1 <= threshold <= len(indices) or len(set(indices)) != len(indices):
        raise ProtocolError(f"{threshold} of {len(indices)} shares cannot be made with indices {indices}.")
    _check_indices(indices)
    degree = threshold - 1
    coefficients = np.frombuffer(random(degree * len(secret)), np.uint8).reshape(degree, len(secret))
    points = np.array(indices, np.uint8)[:, None]
    values = np.zeros((len(indices), len(secret)), np.uint8)
    # Horner's rule, from the highest power down to the secret itself.
    for row in (*coefficients, np.frombuffer(secret, np.uint8)):
        values = multiply(values, points) ^ row
    return {index: value.tobytes() for index, value in zip(indices, values, strict=True)}


def join_shares(shares: Mapping[int, bytes]) -> bytes:
    """The secret behind shares by index; as many as the threshold are needed, more do no harm.

    With fewer, or with a false one among them, the outcome is some other byte string: whoever joins
    shares compares the secret with a commitment to it.

    Raises:
        ProtocolError: No share, an index out of range, or shares of unequal length.
    """
    if not shares or len({len(share) for share in shares.values()}) != 1:
        raise ProtocolError("A secret is joined from one or more shares of one length.")
    _check_indices(list(shares))
    points = np.array(list(shares), np.uint8)
    values = np.stack([np.frombuffer(share, np.uint8) for share in shares.values()])
    # Lagrange at 0: in this field minus is plus, so each weight is prod x_j / (x_j + x_i).
    weights = np.ones(len(points), np.uint8)
    for offset in range(1, len(points)):
        others = np.roll(points, -offset)
        weights = multiply(weights, multiply(others, inverse(others ^ points)))
    terms = multiply(values, weights[:, None])
    return bytes(np.bitwise_xor.reduce(terms, axis=0).tobytes())


def multiply(left: Octets, right: Octets) -> Octets:
    """Product in GF(2^8), elementwise with broadcasting, uint8."""
    left, right = np.broadcast_arrays(left, right)
    product = np.zeros(left.shape, np.uint8)
    factor = left.copy()
    for bit in range(8):
        product ^= factor & (0 - ((right >> bit) & 1)).astype(np.uint8)
        carry = (0 - (factor >> 7)).astype(np.uint8)
        factor = ((factor << 1) ^ (carry & np.uint8(_REDUCTION))).astype(np.uint8)
    return product


def inverse(values: Octets) -> Octets:
    """1 / values in GF(2^8) as values^254, elementwise; 0 gives 0."""
    result = np.ones_like(values)
    power = values
    for _ in range(7):  # 254 = 2 + 4 + ... + 128
        power = multiply(power, power)
        result = multiply(result, power)
    return result


def _check_indices(indices: Sequence[int]) -> None:
    wrong = [index for index in indices if not 1 <= index <= MOST_SHARES]
    if wrong:
        raise ProtocolError(f"Share index {wrong[0]} is not from 1 to {MOST_SHARES}.")
