"""Short lines from a kit's processes to whoever runs it: connected, joined, trained, refused."""

from __future__ import annotations

import time
from pathlib import Path

_NAME = "notices"
_LONGEST = 2000


def notices_path(kit: Path) -> Path:
    """Where a kit's notices are kept until its next start."""
    return kit / "run" / _NAME


def one_line(text: str) -> str:
    """A text from elsewhere, fit for a terminal: no line breaks, no control characters, not endless."""
    line = " ".join(text[:_LONGEST].split())
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def tell(kit: Path, text: str) -> None:
    """Add one line, with the time of day; a full disk loses it and nothing else."""
    line = f"{time.strftime('%H:%M:%S')} {one_line(text)}\n"
    try:
        path = notices_path(kit)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(line)
    except OSError:
        return
