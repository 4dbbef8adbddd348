"""Masks: keystreams of AES-256 in counter mode (NIST SP 800-38A), added modulo the word size.

Whoever knows the seed can take the mask off; to everyone else what is masked is uniformly random.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

Words = npt.NDArray[np.unsignedinteger]

# Within a core's cache, and long enough that the calls into the library do not count.
_STRETCH = 1 << 19
_CIPHER_BLOCK = 16
_ZEROS = memoryview(bytes(_STRETCH))


class Masks:
    """The keystreams of several seeds, laid over successive arrays of words.

    Every array takes the streams' next bytes, rounded up to whole cipher blocks. A seed is used for one
    message only, so its counter starts from 0. However many seeds there are, they share one buffer.

    Args:
        seeds: Seed of 32 bytes, and 1 to add its keystream or -1 to take it off.
    """

    def __init__(self, seeds: Iterable[tuple[bytes, int]]) -> None:
        self._streams = [
            (Cipher(algorithms.AES256(seed), modes.CTR(bytes(_CIPHER_BLOCK))).encryptor(), sign)
            for seed, sign in seeds
        ]
        self._buffer = bytearray(_STRETCH)

    def add_to(self, words: Words) -> None:
        """Add the streams' next bytes to contiguous little-endian words, in place."""
        step = _STRETCH // words.dtype.itemsize
        for start in range(0, len(words), step):
            part = words[start : start + step]
            mask = np.frombuffer(self._buffer, words.dtype, len(part))
            for sign in self.draw(part.nbytes):
                (np.add if sign > 0 else np.subtract)(part, mask, out=part)

    def draw(self, size: int) -> Iterator[int]:
        """Put each stream's next bytes into the buffer in turn, and yield its sign.

        Args:
            size: Bytes, at most 512 KiB; rounded up to whole cipher blocks.
        """
        whole = -(-size // _CIPHER_BLOCK) * _CIPHER_BLOCK
        for stream, sign in self._streams:
            stream.update_into(_ZEROS[:whole], self._buffer)
            yield sign
