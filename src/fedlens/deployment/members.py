"""Whose keys a federation trusts: the coordinator's and every hospital's public signing key.

``members.json`` is what everybody has to hold alike. Two people compare :meth:`Members.fingerprint` on
the phone, so nobody on the way, and no coordinator either, can put a key of its own in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlens.errors import DeploymentError
from fedlens.files import write_text
from fedlens.protocol.encoding import MOST_HOSPITALS
from fedlens.protocol.roster import COORDINATOR, Roster, short_fingerprint

MEMBERS_NAME = "members.json"
_LABEL = b"fedlens/1/members\0"
_KEY_BYTES = 32


@dataclass(frozen=True)
class Members:
    """Public keys of a federation.

    Attributes:
        federation: Its name.
        coordinator: The coordinator's key, 32 bytes.
        hospitals: Key, 32 bytes, by hospital, in the federation file's order; may be empty.
    """

    federation: str
    coordinator: bytes
    hospitals: Mapping[str, bytes]

    def fingerprint(self) -> str:
        """Eight groups of four digits and letters (128 bits) over all of it, to be read aloud."""
        hospitals = [[name, key.hex()] for name, key in self.hospitals.items()]
        content = json.dumps([self.federation, self.coordinator.hex(), hospitals]).encode()
        return short_fingerprint(hashlib.sha256(_LABEL + content).digest())

    def roster(self, names: Sequence[str]) -> Roster:
        """An unsigned roster of some hospitals, in the federation's order.

        Raises:
            DeploymentError: A name is not a member.
            ProtocolError: No name at all.
        """
        for name in names:
            self.key(name)
        chosen = {name: key for name, key in self.hospitals.items() if name in names}
        return Roster.draft(chosen, self.coordinator)

    def key(self, name: str) -> bytes:
        """A hospital's public key.

        Raises:
            DeploymentError: It is not a member.
        """
        if name not in self.hospitals:
            known = ", ".join(self.hospitals) or "nobody yet"
            raise DeploymentError(
                f"Hospital {name[:80]!r} is not a member of {self.federation}.", why=f"Members: {known}."
            )
        return self.hospitals[name]

    def to_json(self) -> str:
        """The content of ``members.json``."""
        content = {
            "federation": self.federation,
            "coordinator": self.coordinator.hex(),
            "hospitals": [{"name": name, "key": key.hex()} for name, key in self.hospitals.items()],
            "fingerprint": self.fingerprint(),
        }
        return json.dumps(content, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str = MEMBERS_NAME) -> Members:
        """Read what :meth:`to_json` made.

        Args:
            text: Content of the file.
            source: What to call it in an error.

        Raises:
            DeploymentError: Damaged, altered, or a key or name stands in it twice.
        """
        try:
            members = cls._parsed(json.loads(text))
            if json.loads(text)["fingerprint"] != members.fingerprint():
                raise ValueError("its fingerprint is not that of its keys")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DeploymentError(
                f"{source} is not a list of members: {error}.", fix="Ask the lead to send members.json again."
            ) from error
        return members

    @classmethod
    def _parsed(cls, content: Any) -> Members:
        entries = [(str(entry["name"]), _key(entry["key"])) for entry in content["hospitals"]]
        hospitals = dict(entries)
        coordinator = _key(content["coordinator"])
        if len(hospitals) < len(entries) or len({coordinator, *hospitals.values()}) < len(entries) + 1:
            raise ValueError("a name or key stands in it twice")
        if len(hospitals) > MOST_HOSPITALS or COORDINATOR in hospitals:
            raise ValueError(f"it has more than {MOST_HOSPITALS} hospitals, or one named {COORDINATOR}")
        return cls(str(content["federation"]), coordinator, hospitals)


def key_fingerprint(key: bytes) -> str:
    """Eight groups of four for one public key, to be read aloud."""
    return short_fingerprint(hashlib.sha256(key).digest())


def same_fingerprint(one: str, other: str) -> bool:
    """Whether two people mean the same fingerprint, however they space it or write its letters."""
    return "".join(one.split()).upper() == "".join(other.split()).upper()


def load_members(path: Path) -> Members:
    """Read a ``members.json``.

    Raises:
        DeploymentError: Missing or damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DeploymentError(
            f"Cannot read {path}: {error.strerror}.", fix="Ask the lead for the federation's members.json."
        ) from error
    return Members.from_json(content, str(path))


def save_members(path: Path, members: Members) -> None:
    """Write a ``members.json``, whole or not at all."""
    write_text(path, members.to_json())


def _key(text: str) -> bytes:
    key = bytes.fromhex(text)
    if len(key) != _KEY_BYTES:
        raise ValueError(f"a key has {_KEY_BYTES} bytes, not {len(key)}")
    return key
