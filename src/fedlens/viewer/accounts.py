"""Who may log in: names and argon2id hashes of their passwords in one file that only its owner may read."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import threading
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from pydantic import Field, ValidationError

from fedlens.errors import SettingsError
from fedlens.files import write_bytes
from fedlens.settings import Settings

SHORTEST_PASSWORD = 12
LONGEST_PASSWORD = 1024

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_OTHERS = 0o077
_FIX = "Make one with: fedlens account add FILE NAME"


class _File(Settings):
    """Content of the file: a hash for each name."""

    version: int = Field(default=1, ge=1, le=1)
    accounts: dict[str, str] = Field(default_factory=dict)


class Accounts:
    """Accounts in a JSON file of mode 0600, read anew when it has changed. Safe to call from several threads.

    Args:
        path: The file; made by the first :meth:`add`.
        hasher: Of passwords; argon2id with the library's parameters when None.
    """

    def __init__(self, path: Path, hasher: PasswordHasher | None = None) -> None:
        self._path = path
        self._hasher = hasher or PasswordHasher()
        self._lock = threading.RLock()
        self._seen: tuple[int, int, int] | None = None
        self._hashes: dict[str, str] = {}
        self._nobody = ""

    def names(self) -> tuple[str, ...]:
        """All accounts in order.

        Raises:
            SettingsError: The file is missing, damaged, or other users of the machine may read it.
        """
        return tuple(sorted(self._read()))

    def mark(self, name: str) -> str:
        """What changes when the account's password does; empty where there is no such account.

        Raises:
            SettingsError: As :meth:`names`.
        """
        kept = self._read().get(name)
        return hashlib.sha256(kept.encode()).hexdigest() if kept else ""

    def add(self, name: str, password: str, *, replace: bool = False) -> None:
        """Make an account.

        Args:
            name: 1 to 64 letters of the English alphabet, digits, and ``._@-``.
            password: 12 to 1024 characters.
            replace: Whether an account of this name gets the new password.

        Raises:
            SettingsError: The name or password will not do, the account exists, or as :meth:`names`.
        """
        if not _NAME.fullmatch(name):
            raise SettingsError(
                f"{name!r} cannot be the name of an account.",
                why="It stands in the audit log and in tables.",
                fix="Use up to 64 letters without accents, digits and . _ @ -, a letter or digit first.",
            )
        _refuse_weak(name, password)
        with self._changing() as hashes:
            same = [known for known in hashes if known.casefold() == name.casefold()]
            if same and not (replace and same == [name]):
                raise SettingsError(
                    f"{self._path} has an account {same[0]} already.",
                    fix="Choose another name, or give it a new password with --replace.",
                )
            hashes[name] = self._hasher.hash(_normal(password))

    def remove(self, name: str) -> None:
        """Remove an account; its sessions end.

        Raises:
            SettingsError: There is none of this name, or as :meth:`names`.
        """
        with self._changing() as hashes:
            if name not in hashes:
                known = ", ".join(sorted(hashes)) or "none"
                raise SettingsError(f"{self._path} has no account {name}.", fix=f"It has: {known}.")
            del hashes[name]

    def verify(self, name: str, password: str) -> bool:
        """Whether the password is the account's; takes as long where there is no such account.

        A hash with other parameters than today's is replaced.

        Raises:
            SettingsError: As :meth:`names`.
        """
        with self._lock:
            self._nobody = self._nobody or self._hasher.hash(secrets.token_urlsafe())
        kept = self._read().get(name)
        try:
            right = self._hasher.verify(kept or self._nobody, _normal(password)[:LONGEST_PASSWORD])
        except (VerificationError, InvalidHashError):
            return False
        if kept is None or not right:
            return False
        if self._hasher.check_needs_rehash(kept):
            self._rehash(name, kept, password)
        return True

    def _rehash(self, name: str, kept: str, password: str) -> None:
        with self._changing() as hashes:
            # Not where the account was removed or changed meanwhile.
            if hmac.compare_digest(hashes.get(name, ""), kept):
                hashes[name] = self._hasher.hash(_normal(password))

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, str]]:
        """The hashes, written back on success; other processes wait their turn."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._path.with_name(f".{self._path.name}.lock"), os.O_CREAT | os.O_RDWR, 0o600)
        with self._lock, os.fdopen(lock, "w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            hashes = dict(self._read()) if self._path.exists() else {}
            yield hashes
            content = _File(accounts=dict(sorted(hashes.items())))
            write_bytes(self._path, content.model_dump_json(indent=2).encode() + b"\n", mode=0o600)

    def _read(self) -> dict[str, str]:
        with self._lock:
            try:
                found = self._path.stat()
                seen = (found.st_mtime_ns, found.st_ino, found.st_size)
                if seen == self._seen:
                    return self._hashes
                text = self._path.read_bytes()
            except OSError as error:
                raise SettingsError(
                    f"Cannot read the accounts {self._path}: {error.strerror}.", fix=_FIX
                ) from error
            if found.st_mode & _OTHERS:
                raise SettingsError(
                    f"Other users of this machine may read {self._path} (mode {found.st_mode & 0o777:04o}).",
                    why="Hashes of passwords can be tried out by whoever has them.",
                    fix=f"chmod 600 {self._path}",
                )
            try:
                self._hashes = _File.model_validate(json.loads(text)).accounts
            except (ValueError, ValidationError) as error:
                raise SettingsError(f"{self._path} is no file of accounts.", fix=_FIX) from error
            self._seen = seen
            return self._hashes


def _normal(password: str) -> str:
    # The same letters come from different keyboards in different encodings.
    return unicodedata.normalize("NFKC", password)


def _refuse_weak(name: str, password: str) -> None:
    if not SHORTEST_PASSWORD <= len(_normal(password)) <= LONGEST_PASSWORD:
        raise SettingsError(
            f"A password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD:,} characters, "
            f"and this one has {len(password):,}.",
            why="Short ones are guessed.",
            fix="Take four or five words that do not belong together.",
        )
    if name.casefold() in password.casefold() and len(password) - len(name) < SHORTEST_PASSWORD // 2:
        raise SettingsError(
            "The password is little more than the account's name.",
            why="It would be guessed first.",
            fix="Take four or five words that do not belong together.",
        )
