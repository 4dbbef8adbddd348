"""A content-addressed store: bytes kept once, under the name of their own digest."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

from fedlens.errors import DataError
from fedlens.files import sync_folder

STORE_NAME = "store"


class Store:
    """The ``store/`` of a study folder; safe to add to from several threads.

    Args:
        folder: The study folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, content: bytes, suffix: str) -> str:
        """Keep ``content`` as ``store/ab/<sha256><suffix>``; the same bytes are kept once.

        The bytes are on the disk, read back and compared before the name appears.

        Returns:
            The path relative to the study folder.

        Raises:
            DataError: What was read back differs from what was written.
            OSError: The disk is full or failing; nothing new is left behind.
        """
        digest = hashlib.sha256(content).hexdigest()
        place = f"{STORE_NAME}/{digest[:2]}/{digest}{suffix.lower()}"
        target = self._folder / place
        if target.exists() and digest_of(target) == digest:
            return place
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{digest[:8]}.", suffix=".part", dir=target.parent)
        part = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            if digest_of(part) != digest:
                raise DataError(
                    f"{target} reads back differently from what was written.",
                    why="The disk is failing.",
                    fix="Import to another disk.",
                )
            part.chmod(0o644)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return place

    def sync(self) -> None:
        """Flush the store's folders, so that every added name survives a power cut."""
        root = self._folder / STORE_NAME
        with contextlib.suppress(FileNotFoundError):
            for folder in [root, *root.iterdir()]:
                sync_folder(folder)


def digest_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def damaged_files(folder: Path) -> tuple[Path, ...]:
    """Stored files of a study folder whose bytes no longer match their name, sorted."""
    files = sorted((folder / STORE_NAME).glob("??/*"))
    return tuple(file for file in files if not file.name.startswith(digest_of(file)))
