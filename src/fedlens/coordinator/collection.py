"""Taking in hospitals' replies one at a time, whatever they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fedlens.coordinator.history import Event
from fedlens.engines.engine import Engine, Reply
from fedlens.errors import NotEnoughHospitalsError, RoundError
from fedlens.progress import Progress
from fedlens.protocol.codec import array_bytes

Accept = Callable[[str, bytes], Event]
"""Checks and sums one hospital's reply; returns what the history shall say of it."""


@dataclass
class Collected:
    """What came of one exchange.

    Attributes:
        hospitals: Of each hospital whose reply was accepted, what the history shall say.
        missing: Hospitals that failed or were silent, with the reason.
        refused: Hospitals whose reply was refused, with the reason.
        seconds: Wall time of the exchange without that of checking and summing.
        summing_seconds: Wall time of checking and summing.
    """

    hospitals: dict[str, Event] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    summing_seconds: float = 0.0

    def require(self, minimum: int, what: str, rule: str = "federation.minimum_hospitals") -> None:
        """Check that enough hospitals are left.

        Args:
            minimum: How many are enough.
            what: Was asked of them.
            rule: Says so.

        Raises:
            NotEnoughHospitalsError: With every other hospital's reason.
        """
        if len(self.hospitals) < minimum:
            reasons = [f"{name}: {reason}" for name, reason in (self.missing | self.refused).items()]
            raise NotEnoughHospitalsError(
                f"{what}: only {len(self.hospitals)} hospitals answered usably.",
                why=f"{rule} = {minimum}. " + " ".join(reasons),
                fix="Mend these hospitals, then go on with --resume.",
            )


def collect(
    engine: Engine,
    names: Sequence[str],
    request: bytes,
    accept: Accept,
    *,
    step: str,
    progress: Progress,
    own: Mapping[str, bytes] | None = None,
) -> Collected:
    """Send one request and hand each reply to ``accept``; a reply it refuses does not end the round.

    What ``own`` holds for a hospital goes to it alone, beside the request.

    At most one reply is alive here at any time.

    Raises:
        RoundError: The engine brings a reply of a hospital that was not asked, or a second one.
    """
    result = Collected()
    waiting = dict.fromkeys(names, "It did not answer.")

    def receive(reply: Reply) -> None:
        if waiting.pop(reply.hospital, None) is None:
            raise RoundError(
                f"The engine brought a reply of hospital {reply.hospital} that nobody asked for."
            )
        if reply.content is None:
            result.missing[reply.hospital] = reply.error
            return
        began = time.perf_counter()
        try:
            said = accept(reply.hospital, reply.content)
            down = array_bytes(request) + array_bytes((own or {}).get(reply.hospital, b""))
            sizes = {"bytes_down": down, "bytes_up": array_bytes(reply.content)}
            result.hospitals[reply.hospital] = {**said, **sizes}
        except RoundError as error:
            result.refused[reply.hospital] = str(error)
        result.summing_seconds += time.perf_counter() - began

    began = time.perf_counter()
    progress(step, 0, len(names))
    # Through map, no name here holds a reply while the engine makes the next one.
    for done, _ in enumerate(map(receive, engine.exchange(names, request, own)), start=1):
        progress(step, done, len(names))
    result.missing |= waiting
    result.seconds = time.perf_counter() - began - result.summing_seconds
    return result
