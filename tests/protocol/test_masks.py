from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlens.protocol.keys import SEED_BYTES
from fedlens.protocol.masks import Masks

TYPES = ("<u1", "<u2", "<u4", "<u8")
STRETCH = 1 << 19
SEEDS = st.binary(min_size=SEED_BYTES, max_size=SEED_BYTES)
KEY = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")


def plain_keystream(seed: bytes, size: int, counter: int = 0) -> bytes:
    cipher = Cipher(algorithms.AES256(seed), modes.CTR(counter.to_bytes(16, "big")))
    return cipher.encryptor().update(bytes(size))


def keystream(seed: bytes, count: int, dtype: str = "<u1", sign: int = 1) -> npt.NDArray[np.unsignedinteger]:
    words = np.zeros(count, dtype)
    Masks([(seed, sign)]).add_to(words)
    return words


def random_words(count: int, dtype: str) -> npt.NDArray[np.unsignedinteger]:
    drawn = np.random.default_rng(count).integers(0, 256, count * np.dtype(dtype).itemsize, np.uint8)
    return drawn.view(dtype)


def test_the_cipher_gives_the_known_answer_of_sp_800_38a() -> None:
    plain = bytes.fromhex(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    expected = bytes.fromhex(
        "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
        "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"
    )
    stream = plain_keystream(KEY, 64, int("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff", 16))
    assert bytes(a ^ b for a, b in zip(plain, stream, strict=True)) == expected


def test_the_keystream_is_the_cipher_of_a_counter_from_zero() -> None:
    counters = b"".join(number.to_bytes(16, "big") for number in range(300))
    blocks = Cipher(algorithms.AES256(KEY), modes.ECB()).encryptor().update(counters)
    assert keystream(KEY, len(blocks)).tobytes() == blocks


@settings(deadline=None, max_examples=60)
@given(SEEDS, st.integers(0, 300), st.sampled_from(TYPES))
def test_masks_are_aes_ctr_as_little_endian_words(seed: bytes, count: int, dtype: str) -> None:
    expected = np.frombuffer(plain_keystream(seed, count * np.dtype(dtype).itemsize), dtype)
    assert np.array_equal(keystream(seed, count, dtype), expected)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(SEEDS, st.sampled_from([1, -1])), max_size=4),
    st.lists(st.integers(0, 70), min_size=1, max_size=4),
    st.sampled_from(TYPES),
)
def test_masks_taken_off_leave_the_words_as_they_were(
    seeds: list[tuple[bytes, int]], counts: list[int], dtype: str
) -> None:
    arrays = [random_words(count, dtype) for count in counts]
    masked = [array.copy() for array in arrays]
    on, off = Masks(seeds), Masks([(seed, -sign) for seed, sign in reversed(seeds)])
    for array in masked:
        on.add_to(array)
    for array in masked:
        off.add_to(array)
    assert all(np.array_equal(a, b) for a, b in zip(arrays, masked, strict=True))


@pytest.mark.parametrize("dtype", TYPES)
def test_masks_of_several_seeds_add_up_modulo_the_word_size(dtype: str) -> None:
    seeds = [(bytes([number]) * SEED_BYTES, 1 if number % 2 else -1) for number in range(5)]
    words = random_words(33, dtype)
    expected = words.copy()
    for seed, sign in seeds:
        expected += keystream(seed, 33, dtype) if sign > 0 else 0 - keystream(seed, 33, dtype)
    Masks(seeds).add_to(words)
    assert np.array_equal(words, expected)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("extra", [-1, 0, 1, 17])
def test_long_arrays_take_one_unbroken_keystream(dtype: str, extra: int) -> None:
    itemsize = np.dtype(dtype).itemsize
    count = STRETCH // itemsize + extra
    expected = np.frombuffer(plain_keystream(KEY, count * itemsize), dtype)
    assert np.array_equal(keystream(KEY, count, dtype), expected)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 3 * STRETCH // 64), max_size=4).map(sorted))
def test_cuts_at_whole_cipher_blocks_change_nothing(cuts: Sequence[int]) -> None:
    count = 3 * STRETCH // 8 + 5
    words = np.zeros(count, "<u4")
    masks = Masks([(KEY, 1)])
    for start, end in zip([0, *(4 * cut for cut in cuts)], [*(4 * cut for cut in cuts), count], strict=True):
        masks.add_to(words[start:end])
    assert np.array_equal(words, keystream(KEY, count, "<u4"))


def test_every_array_starts_at_a_whole_cipher_block() -> None:
    stream = plain_keystream(KEY, 64)
    first, second, third = np.zeros(3, "<u2"), np.zeros(17, "<u1"), np.zeros(1, "<u8")
    masks = Masks([(KEY, 1)])
    for words in (first, second, third):
        masks.add_to(words)
    assert first.tobytes() == stream[:6]
    assert second.tobytes() == stream[16:33]
    assert third.tobytes() == stream[48:56]


def test_another_seed_gives_another_mask() -> None:
    assert not np.array_equal(keystream(KEY, 64), keystream(KEY[:-1] + b"\0", 64))


def test_without_seeds_nothing_is_masked() -> None:
    words = random_words(10, "<u4")
    before = words.copy()
    Masks([]).add_to(words)
    assert np.array_equal(words, before)


def test_masked_words_look_uniform() -> None:
    ones = int(np.unpackbits(keystream(KEY, 1 << 17)).sum())
    assert abs(ones - (1 << 19)) < 5 * 512


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_seed_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="key size"):
        Masks([(bytes(size), 1)])
