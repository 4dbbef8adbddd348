"""Keys of one sealed sum: hybrid key pairs, pair secrets, and boxes that only one peer can open.

Every key agreement is X25519 (RFC 7748) and ML-KEM-768 (FIPS 203) together, joined by HKDF-SHA256
(RFC 5869): who breaks only one of them learns nothing. All of it is made anew for every sum.

A hospital has two key pairs in a sum, as in Bonawitz et al. 2017, section 4: boxes are encrypted to the
first, which is never revealed; masks rest on the second, whose seed is shared among all members, so that
the masks of a hospital that drops out can be taken off. ML-KEM is no symmetric agreement: of two
hospitals the one earlier in the roster encapsulates to the other. The secrets that it encapsulated do not
follow from its seed, so it deposits them with the coordinator, encrypted under that seed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedlens.errors import ProtocolError
from fedlens.protocol.shamir import Random

SEED_BYTES = 32
X25519_BYTES = 32
KEM_KEY_BYTES = 1184
KEM_TEXT_BYTES = 1088
TAG_BYTES = 16
PUBLIC_BYTES = X25519_BYTES + KEM_KEY_BYTES
# Every key encrypts one message only, so its nonce need not vary.
_NONCE = bytes(12)
_LABEL = b"fedlens/1/"


def derive(secret: bytes, purpose: str, context: bytes, size: int = SEED_BYTES) -> bytes:
    """HKDF-SHA256 of a secret for one purpose in one context; other purposes' keys say nothing of it."""
    info = _LABEL + purpose.encode() + b"\0" + context
    return HKDF(SHA256(), size, salt=None, info=info).derive(secret)


@dataclass(frozen=True)
class HybridKey:
    """An X25519 and an ML-KEM-768 private key, both derived from one seed."""

    x25519: X25519PrivateKey
    kem: MLKEM768PrivateKey

    @classmethod
    def from_seed(cls, seed: bytes, purpose: str) -> HybridKey:
        """The key pair that 32 bytes stand for, for one purpose."""
        return cls(
            X25519PrivateKey.from_private_bytes(derive(seed, f"{purpose} x25519", b"")),
            MLKEM768PrivateKey.from_seed_bytes(derive(seed, f"{purpose} ml-kem-768", b"", 64)),
        )

    def public(self) -> bytes:
        """X25519 public key, then ML-KEM encapsulation key, 1216 bytes."""
        return self.x25519.public_key().public_bytes_raw() + self.kem.public_key().public_bytes_raw()

    def agree(self, public: bytes) -> bytes:
        """The X25519 secret with the owner of a hybrid public key, 32 bytes.

        Raises:
            ProtocolError: The key is no point of use.
        """
        try:
            return self.x25519.exchange(X25519PublicKey.from_public_bytes(public[:X25519_BYTES]))
        except ValueError as error:
            raise ProtocolError(f"A public key cannot be used: {error}.") from error

    def decapsulate(self, text: bytes) -> bytes:
        """The ML-KEM secret in a ciphertext, 32 bytes; an altered one gives an unrelated secret.

        Raises:
            ProtocolError: The ciphertext has another length.
        """
        try:
            return self.kem.decapsulate(text)
        except ValueError as error:
            raise ProtocolError(f"A key ciphertext cannot be read: {error}.") from error


def check_public(public: bytes, name: str) -> None:
    """Refuse a hybrid public key that nobody could agree on a secret with.

    Raises:
        ProtocolError: Names its owner.
    """
    try:
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(public[:X25519_BYTES]))
        MLKEM768PublicKey.from_public_bytes(public[X25519_BYTES:])
    except ValueError as error:
        raise ProtocolError(f"A public key of {name} cannot be used: {error}.") from error


def encapsulate(public: bytes) -> tuple[bytes, bytes]:
    """A fresh ML-KEM secret for the owner of a hybrid public key, and its ciphertext.

    Raises:
        ProtocolError: The key is malformed.
    """
    try:
        return MLKEM768PublicKey.from_public_bytes(public[X25519_BYTES:]).encapsulate()
    except ValueError as error:
        raise ProtocolError(f"A public key cannot be used: {error}.") from error


def pair_secret(x25519: bytes, kem: bytes, purpose: str, context: bytes) -> bytes:
    """What two hospitals share for one purpose, 32 bytes.

    Args:
        x25519: Their X25519 secret.
        kem: The ML-KEM secret that one of them encapsulated to the other.
        purpose: ``box`` or ``mask``.
        context: Binds the sum, both names and the public keys of both.
    """
    return derive(x25519 + kem, purpose, context)


def encrypt(key: bytes, plain: bytes, context: bytes) -> bytes:
    """AES-256-GCM under a key that encrypts nothing else; the context is authenticated with it."""
    return AESGCM(key).encrypt(_NONCE, plain, context)


def decrypt(key: bytes, text: bytes, context: bytes, what: str) -> bytes:
    """What was encrypted.

    Args:
        key: As for :func:`encrypt`.
        text: From there.
        context: As there.
        what: Whose text it is, for the error.

    Raises:
        ProtocolError: The ciphertext or the context was altered.
    """
    try:
        return AESGCM(key).decrypt(_NONCE, text, context)
    except InvalidTag as error:
        raise ProtocolError(f"The ciphertext of {what} was altered, or made for another sum.") from error


def deposit(seed: bytes, secrets: Mapping[int, bytes], context: bytes) -> bytes:
    """The ML-KEM secrets that a hospital encapsulated, by roster index, encrypted under its mask seed."""
    plain = b"".join(index.to_bytes(2, "big") + secret for index, secret in sorted(secrets.items()))
    return encrypt(derive(seed, "deposit", context), plain, context)


def open_deposit(seed: bytes, text: bytes, context: bytes, name: str) -> dict[int, bytes]:
    """The secrets in a hospital's deposit, by roster index.

    Raises:
        ProtocolError: It was altered, or encrypted under another seed.
    """
    plain = decrypt(derive(seed, "deposit", context), text, context, f"{name}'s deposit")
    size = 2 + SEED_BYTES
    if len(plain) % size:
        raise ProtocolError(f"The deposit of {name} is torn.")
    parts = [plain[start : start + size] for start in range(0, len(plain), size)]
    return {int.from_bytes(part[:2], "big"): part[2:] for part in parts}


def fresh_seed(random: Random = os.urandom) -> bytes:
    """32 random bytes."""
    return random(SEED_BYTES)
