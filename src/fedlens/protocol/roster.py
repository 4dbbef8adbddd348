"""Who takes part: long-term Ed25519 identities (RFC 8032), and the roster that binds names to them.

A hospital makes its identity on its own premises and the private key never leaves them. The roster
lists all public keys and is signed by every member, so nobody, the coordinator included, can show
different rosters to different hospitals. Two people compare :meth:`Roster.fingerprint` on the phone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedlens.errors import ProtocolError
from fedlens.protocol.encoding import MOST_HOSPITALS

COORDINATOR = "coordinator"
SIGNATURE_BYTES = 64
_LABEL = b"fedlens/1/"


@dataclass(frozen=True)
class Identity:
    """A member's name and private signing key.

    Attributes:
        name: As the roster spells it.
        key: Never leaves the member's premises.
    """

    name: str
    key: Ed25519PrivateKey

    @classmethod
    def generate(cls, name: str) -> Identity:
        """A new identity."""
        return cls(name, Ed25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, name: str, secret: bytes) -> Identity:
        """The identity whose :meth:`secret` these 32 bytes are."""
        return cls(name, Ed25519PrivateKey.from_private_bytes(secret))

    def secret(self) -> bytes:
        """The private key, 32 bytes, for a file of mode 0600."""
        return self.key.private_bytes_raw()

    def public(self) -> bytes:
        """The public key, 32 bytes."""
        return self.key.public_key().public_bytes_raw()

    def sign(self, purpose: str, content: bytes | memoryview) -> bytes:
        """A signature over the SHA-256 of ``content``, for one purpose only, 64 bytes."""
        return self.key.sign(_to_sign(purpose, content))


@dataclass(frozen=True)
class Roster:
    """Names and public keys of a study's members, in an order that never changes.

    Attributes:
        members: Public key, 32 bytes, by hospital; the order gives the share indices.
        coordinator: The coordinator's public key.
        signatures: Every member's signature over the digest.
    """

    members: Mapping[str, bytes]
    coordinator: bytes
    signatures: Mapping[str, bytes]

    @classmethod
    def draft(cls, members: Mapping[str, bytes], coordinator: bytes) -> Roster:
        """A roster that nobody has signed yet.

        Raises:
            ProtocolError: Nobody in it, too many, or a name that is kept for the coordinator.
        """
        if not 1 <= len(members) <= MOST_HOSPITALS or COORDINATOR in members:
            raise ProtocolError(
                f"A roster of {len(members)} hospitals cannot be made.",
                why=f"It has 1 to {MOST_HOSPITALS}, none of them named {COORDINATOR!r}.",
            )
        return cls(dict(members), coordinator, {})

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names and keys in order, hexadecimal."""
        entries = [[name, key.hex()] for name, key in self.members.items()]
        content = json.dumps([entries, self.coordinator.hex()]).encode()
        return hashlib.sha256(_LABEL + b"roster\0" + content).hexdigest()

    def fingerprint(self) -> str:
        """Eight groups of four digits and letters (128 bits), to be read aloud."""
        return short_fingerprint(bytes.fromhex(self.digest))

    def index(self, name: str) -> int:
        """The hospital's share index, from 1.

        Raises:
            ProtocolError: It is not in the roster.
        """
        if name not in self.members:
            raise ProtocolError(f"Hospital {name[:40]!r} is not in the roster.")
        return list(self.members).index(name) + 1

    def signed_by(self, identity: Identity) -> Roster:
        """This roster with one more signature.

        Raises:
            ProtocolError: The roster lists another key under the identity's name.
        """
        if self._key(identity.name) != identity.public():
            raise ProtocolError(
                f"The roster lists another key for {identity.name}.",
                why="Whoever holds that key could speak in its name.",
                fix="Compare fingerprints on the phone, and make the roster again.",
            )
        signature = identity.sign("roster", self.digest.encode())
        return Roster(self.members, self.coordinator, {**self.signatures, identity.name: signature})

    def check(self) -> None:
        """Refuse a roster that not every hospital has signed.

        Raises:
            ProtocolError: Names the first one without a valid signature.
        """
        for name in self.members:
            signature = self.signatures.get(name)
            if signature is None or not self._signed(name, "roster", self.digest.encode(), signature):
                raise ProtocolError(
                    f"Hospital {name} has not signed the roster.",
                    why="It may have been shown another one.",
                    fix="Have every hospital sign the same roster; compare fingerprints on the phone.",
                )

    def verify(self, name: str, purpose: str, content: bytes | memoryview, signature: bytes) -> None:
        """Refuse what a member did not sign for this purpose.

        Raises:
            ProtocolError: An unknown member, or another signature.
        """
        if not self._signed(name, purpose, content, signature):
            raise ProtocolError(f"A message in the name of {name} was not signed by it.")

    def _signed(self, name: str, purpose: str, content: bytes | memoryview, signature: bytes) -> bool:
        try:
            key = Ed25519PublicKey.from_public_bytes(self._key(name))
            key.verify(signature, _to_sign(purpose, content))
        except (InvalidSignature, ValueError):
            return False
        return True

    def _key(self, name: str) -> bytes:
        if name == COORDINATOR:
            return self.coordinator
        if name not in self.members:
            raise ProtocolError(f"{name[:40]!r} is not in the roster.")
        return self.members[name]


def short_fingerprint(digest: bytes) -> str:
    """The first 128 bits of a digest, as eight groups of four; fewer could be made to agree by trying."""
    text = digest[:16].hex().upper()
    return " ".join(text[start : start + 4] for start in range(0, 32, 4))


def _to_sign(purpose: str, content: bytes | memoryview) -> bytes:
    # The digest, since Ed25519 reads what it signs twice and messages have megabytes.
    return _LABEL + purpose.encode() + b"\0" + hashlib.sha256(content).digest()
