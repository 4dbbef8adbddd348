"""Who looked at what, and decided what: lines that are only ever added, each bound to the one before."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

AUDIT_NAME = "audit.jsonl"

Action = Literal[
    "list",
    "view case",
    "upload",
    "review",
    "export reviews",
    "view study",
    "log in",
    "log in refused",
    "log out",
]

_BLOCK = 1 << 16


class AuditLog:
    """A file of JSON lines: ``time``, ``actor``, ``action``, ``case``, ``detail`` and ``before``.

    The last is the SHA-256 of the line before. A line that was changed, removed or put between others breaks
    the chain; lines cut off at the end do not, so a copy of the last digest kept elsewhere is what proves
    completeness. Any thread or process may write.

    Args:
        path: The file; made, with its folder, where it is missing. Nobody else may read it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))

    def record(self, actor: str, action: Action, case_id: str = "", detail: str = "") -> None:
        """Add a line; it is on the disk on return.

        Args:
            actor: Account, or the name of whoever is taken to sit before the viewer.
            action: What they did.
            case_id: To which case.
            detail: Never a patient, a title or words from a form.

        Raises:
            OSError: The disk is full or failing; the file holds what it held before.
        """
        with self._lock, self._path.open("rb+", buffering=0) as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            end = stream.seek(0, os.SEEK_END)
            last = _last_line(stream.fileno(), end)
            # A line that a power cut tore stays for :meth:`verify` to name; the next begins below it.
            torn = end > 0 and not last.endswith(b"\n")
            content = {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "actor": actor,
                "action": action,
                "case": case_id,
                "detail": detail,
                "before": _digest(last) if end else "",
            }
            line = (b"\n" if torn else b"") + json.dumps(content).encode() + b"\n"
            try:
                if stream.write(line) != len(line):
                    raise OSError(f"A line of {self._path} was written in part.")
                os.fdatasync(stream.fileno())
            except OSError:
                stream.truncate(end)
                raise

    def verify(self) -> int:
        """Number, from 1, of the first line that does not follow from the one before; 0 where all do."""
        before = ""
        for number, line in enumerate(self._lines(), start=1):
            try:
                content = json.loads(line)
                follows = isinstance(content, dict) and content["before"] == before
            except (ValueError, KeyError):
                follows = False
            if not follows or not line.endswith(b"\n"):
                return number
            before = _digest(line)
        return 0

    def _lines(self) -> Iterator[bytes]:
        with self._path.open("rb") as stream:
            yield from stream


def _digest(line: bytes) -> str:
    return hashlib.sha256(line.rstrip(b"\n")).hexdigest()


def _last_line(handle: int, end: int) -> bytes:
    """The file's last line, its line break included where it has one."""
    tail = b""
    while end and b"\n" not in tail[:-1]:
        start = max(0, end - _BLOCK)
        tail, end = os.pread(handle, end - start, start) + tail, start
    return tail[tail.rfind(b"\n", 0, max(0, len(tail) - 1)) + 1 :]
