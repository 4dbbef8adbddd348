"""Who carries messages between the coordinator and hospitals: the one interface of all engines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Reply:
    """What one hospital answered.

    Attributes:
        hospital: As the roster spells it.
        content: The answering message; None where the hospital failed.
        error: Why it failed, in a sentence; empty where it answered.
    """

    hospital: str
    content: bytes | None = field(repr=False)
    error: str = ""


class Engine(Protocol):
    """Carries messages and never reads them."""

    @property
    def hospitals(self) -> tuple[str, ...]:
        """The roster: all hospitals of the study, in an order that never changes."""
        ...

    def exchange(
        self, names: Sequence[str], request: bytes, own: Mapping[str, bytes] | None = None
    ) -> Iterator[Reply]:
        """Send one request to the named hospitals; yield just one reply for each.

        Args:
            names: Hospitals to ask.
            request: The same for all.
            own: What goes to one hospital only, beside the request.

        Replies come in the order of ``names``, however the hospitals raced, since the coordinator
        sums them as they come and the sum must not depend on the weather. An engine holds no reply
        once it was taken, and where it can makes the next one only when asked for it.
        """
        ...
