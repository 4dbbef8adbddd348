"""A folder that appears whole or not at all.

Everything is written into ``.NAME.part`` beside the target, which is renamed as the last step. A
lock tells a living writer's folder from one that a killed writer left, which the next writer clears.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path

from fedlens.errors import DataError
from fedlens.files import sync_folder

_LOCK = ".lock"


@contextlib.contextmanager
def staged_folder(target: Path, *, replaces: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Yield an empty folder; on success it becomes ``target``, on any exception it is removed.

    Args:
        target: Folder to appear; new or empty, unless ``replaces`` names entries.
        replaces: Entries of an existing ``target`` that the new folder supersedes; all its other
            entries move over.

    Raises:
        DataError: Another writer is at work on the same target.
    """
    part, old = _beside(target, "part"), _beside(target, "old")
    target.parent.mkdir(parents=True, exist_ok=True)
    part.mkdir(exist_ok=True)
    with (part / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"Another import is writing {target}.", fix="Wait until it is done.") from error
        try:
            _clear(part)
            _recover(target, old, replaces)
            yield part
            (part / _LOCK).unlink()
            _swap(part, target, old, replaces)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise


def _swap(part: Path, target: Path, old: Path, replaces: frozenset[str]) -> None:
    if target.exists():
        target.rename(old)
    part.rename(target)
    sync_folder(target.parent)
    _recover(target, old, replaces)


def _recover(target: Path, old: Path, replaces: frozenset[str]) -> None:
    """Bring what a replaced folder held besides ``replaces`` to its place, also after a kill midway."""
    if not old.exists():
        return
    if not target.exists():
        old.rename(target)
        return
    for entry in old.iterdir():
        if entry.name not in replaces and not (target / entry.name).exists():
            entry.rename(target / entry.name)
    shutil.rmtree(old)


def _clear(part: Path) -> None:
    for entry in part.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != _LOCK:
            entry.unlink()


def _beside(target: Path, what: str) -> Path:
    return target.parent / f".{target.name}.{what}"
