"""Short lines from a kit's processes to whoever runs it: connected, joined, trained, refused."""

from __future__ import annotations

import time
from pathlib import Path

_NAME = "notices"


def notices_path(kit: Path) -> Path:
    """Where a kit's notices are kept until its next start."""
    return kit / "run" / _NAME


def tell(kit: Path, text: str) -> None:
    """Add one line, with the time of day; a full disk loses it and nothing else."""
    line = f"{time.strftime('%H:%M:%S')} {' '.join(text.split())}\n"
    try:
        path = notices_path(kit)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(line)
    except OSError:
        return
