"""Pseudonyms, replaced UIDs and date offsets of one hospital, all from one secret that stays there.

Each is an HMAC-SHA-256 of what it stands for. Without the secret nobody can try out patient numbers until
one fits, which is easily done against a plain digest. With it the same patient is the same pseudonym in
every import, with nothing to look up and no table to lose.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import stat
import uuid
from datetime import timedelta
from functools import cached_property
from pathlib import Path

from fedlens.errors import DataError
from fedlens.files import sync_folder

SECRET_NAME = "pseudonyms.secret"
"""Name of the secret's file in a study folder."""

_BYTES = 32
_WELL_KNOWN = "1.2.840.10008."
_DAYS = 3652


class Pseudonyms:
    """What patients, UIDs and dates are turned into under one secret; safe to use from several threads.

    Args:
        secret: At least 32 bytes, hard to guess, never leaving the hospital.

    Raises:
        DataError: The secret is shorter.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) < _BYTES:
            raise DataError(
                f"A secret for pseudonyms has {len(secret)} bytes.", why=f"It takes at least {_BYTES}."
            )
        self._secret = secret

    def patient(self, identifier: str) -> str:
        """16 hexadecimal digits for a patient, an institution, or whatever else has one identifier."""
        return self._digest("name", identifier)[:8].hex()

    def uid(self, uid: str) -> str:
        """Another UID, always the same for this one; UIDs that the standard itself defines stay.

        The new one is made of a UUID (DICOM PS3.5 B.2), so it belongs to no organisation's root.
        """
        if not uid or uid.startswith(_WELL_KNOWN):
            return uid
        made = uuid.UUID(bytes=self._digest("uid", uid)[:16], version=4)
        return f"2.25.{made.int}"

    def offset(self, patient: str) -> timedelta:
        """How far all of a patient's dates move: back by one day to ten years, to the second."""
        number = int.from_bytes(self._digest("dates", patient)[:8])
        return -timedelta(days=1, seconds=number % ((_DAYS - 1) * 86400))

    def _digest(self, purpose: str, text: str) -> bytes:
        return hmac.digest(self._secret, f"{purpose} {text}".encode(), "sha256")

    def __repr__(self) -> str:
        return "Pseudonyms(secret not shown)"


class LatePseudonyms:
    """Pseudonyms whose secret is read, or made, when the first one is asked for.

    Args:
        kept: Where an earlier secret may be.
        new: Where to write one otherwise.
    """

    def __init__(self, kept: Path, new: Path) -> None:
        self._kept, self._new = kept, new

    @cached_property
    def ready(self) -> Pseudonyms:
        """The pseudonyms.

        Raises:
            DataError: As ``load_pseudonyms``.
        """
        return load_pseudonyms(self._kept if self._kept.exists() else self._new)


def load_pseudonyms(file: Path) -> Pseudonyms:
    """Read a secret, or make one on first use: 32 random bytes in a file that only its owner may read.

    Raises:
        DataError: The file is cut short, cannot be read or written, or others may read it.
    """
    try:
        with contextlib.suppress(FileExistsError):
            _make(file)
        return Pseudonyms(_read(file))
    except OSError as error:
        raise DataError(
            f"The secret {file} cannot be read or written: {error.strerror or error}.",
            fix="Choose a place for it on a local disk that you own.",
        ) from error


def _make(file: Path) -> None:
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{secrets.token_hex(4)}.part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(secrets.token_bytes(_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
        # Unlike a rename, a link never replaces the secret that another process made meanwhile.
        os.link(part, file)
        sync_folder(file.parent)
    finally:
        part.unlink(missing_ok=True)


def _read(file: Path) -> bytes:
    with file.open("rb") as stream:
        if stat.S_IMODE(os.fstat(stream.fileno()).st_mode) & 0o077:
            raise DataError(
                f"Others may read the secret {file}.",
                why="Whoever has it can find out which patient a pseudonym is.",
                fix=f"chmod 600 {file}, and make a new one if somebody may have copied it.",
            )
        content = stream.read(_BYTES + 1)
    if len(content) != _BYTES:
        raise DataError(
            f"The secret {file} is no secret of FedLens: it does not have {_BYTES} bytes.",
            why="Another secret would give the same patients other pseudonyms.",
            fix="Bring it back from a backup; or remove it, and de-identify everything anew.",
        )
    return content
