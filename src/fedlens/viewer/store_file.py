"""The file that a viewer keeps its cases in, held by one process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedlens.errors import HistoryError
from fedlens.viewer.store_rows import SCHEMA, VERSION

_BUSY_SECONDS = 10.0


class StoreFile:
    """A SQLite file with the viewer's tables; any thread may call it.

    Readers have a connection of their own and never wait for a write to reach the disk.

    Args:
        path: The file; made, with its folder, where it is missing. Nobody else may read it.

    Raises:
        HistoryError: Another process holds it, it is damaged or of another version, or its folder cannot be
            written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing, self._reading = threading.Lock(), threading.Lock()
        with contextlib.ExitStack() as opening:
            opening.enter_context(_claim(path))
            try:
                # The files that SQLite puts beside it take its permissions.
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
                self._writer = opening.enter_context(contextlib.closing(_connect(path)))
                _make_tables(self._writer, path)
                self._reader = opening.enter_context(contextlib.closing(_connect(path)))
            except (sqlite3.Error, OSError) as error:
                raise HistoryError(
                    f"Cannot open {path}: {error}.",
                    why="It is damaged, or the disk is full or read-only.",
                    fix="Move it elsewhere to begin anew; reviews stay in the file that you moved.",
                ) from error
            self._open = opening.pop_all()

    def close(self) -> None:
        """Let go of the file; nothing may be called afterwards."""
        with self._writing, self._reading:
            self._open.close()

    def read(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """Rows of one statement.

        Raises:
            HistoryError: The disk fails.
        """
        with self._reading, self._told("read"):
            return self._reader.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it is on the disk afterwards, or nothing.

        Raises:
            HistoryError: The disk is full or fails.
        """
        with self._writing, self._told("written"), self._writer:
            self._writer.execute("BEGIN IMMEDIATE")
            yield self._writer

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Errors of SQLite as errors for people."""
        try:
            yield
        except sqlite3.Error as error:
            raise HistoryError(
                f"The viewer's {self._path.name} cannot be {what}: {error}.",
                why="Nothing was changed.",
                fix="Look whether the disk is full or failing, and try again.",
            ) from error


@contextlib.contextmanager
def _claim(path: Path) -> Iterator[None]:
    """Hold a store until the block, or the process, ends."""
    with contextlib.ExitStack() as holding:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            held = os.open(path.with_name(f"{path.name}.lock"), os.O_CREAT | os.O_RDWR, 0o600)
            holding.callback(os.close, held)
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HistoryError(
                f"{path.parent} is being viewed already.",
                why="Two viewers would keep reviews and the audit log in the same files.",
                fix="Use the address that the other one printed, or stop it first.",
            ) from error
        except OSError as error:
            raise HistoryError(
                f"Cannot keep anything in {path.parent}: {error.strerror or error}.",
                why="The viewer keeps reviews beside the run.",
                fix="Give a run in a folder that you may write to.",
            ) from error
        yield


def _connect(path: Path) -> sqlite3.Connection:
    # Transactions are begun by hand; threads take turns by the store's locks.
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _make_tables(connection: sqlite3.Connection, path: Path) -> None:
    ((version,),) = connection.execute("PRAGMA user_version").fetchall()
    if version == 0:
        connection.executescript(f"BEGIN; {SCHEMA} COMMIT;")
    elif version != VERSION:
        raise HistoryError(
            f"{path} is of version {version}.",
            why=f"This FedLens reads version {VERSION}.",
            fix="Use the FedLens that wrote it, or move it elsewhere to begin anew.",
        )
