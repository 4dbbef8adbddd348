"""Who was not in a round, and why, from the history alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Absence:
    """One hospital that did not do its part of one step.

    Attributes:
        hospital: Its name.
        kind: ``missing`` or ``refused``.
        reason: Why; empty where nothing was noted.
        counted: Its numbers are in the sum all the same: it failed only afterwards.
    """

    hospital: str
    kind: str
    reason: str
    counted: bool


def absences(step: Event, expected: Sequence[str] = ()) -> tuple[Absence, ...]:
    """Hospitals that were missing or refused in one step.

    Args:
        step: A ``round`` event, the ``evaluation`` in one, a ``segment`` or a ``failed`` event.
        expected: Hospitals that were asked; whoever of them is not in the step was away, whatever is noted.
    """
    present = step.get("hospitals", {})
    noted = {
        name: (kind, reason) for kind in ("missing", "refused") for name, reason in step.get(kind, {}).items()
    }
    names = dict.fromkeys([*(name for name in expected if name not in present), *noted])
    return tuple(Absence(name, *noted.get(name, ("missing", "")), name in present) for name in names)


def left_out(step: Event, expected: Sequence[str]) -> tuple[str, ...]:
    """Hospitals whose numbers are not in a step."""
    return tuple(away.hospital for away in absences(step, expected) if not away.counted)
