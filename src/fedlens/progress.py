"""How long work reports where it stands, without knowing who watches."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as ``progress(step, done, total)``; ``total`` is 0 where it is not known."""


def silent(step: str, done: int, total: int) -> None:
    """Nobody watches."""
