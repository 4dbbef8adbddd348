"""Exchanges of one sealed sum, and what the history shall say of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedlens.coordinator.collection import Collected, collect
from fedlens.coordinator.history import Event
from fedlens.engines.engine import Engine
from fedlens.progress import Progress
from fedlens.protocol.messages import Stamp
from fedlens.protocol.sealed_sum import SealedSum


class Trail:
    """Exchanges of one sum.

    Args:
        engine: Carries messages to hospitals.
        stamp: Which sum.
        threshold: Fewest hospitals that an exchange goes on with.
        event: Told what happened.
        progress: Told of every hospital's reply.
    """

    def __init__(
        self, engine: Engine, stamp: Stamp, threshold: int, event: Event, progress: Progress
    ) -> None:
        self._engine = engine
        self._what = f"Round {stamp.round} ({stamp.step})"
        self._threshold = threshold
        self._progress = progress
        self._event = event
        self._bytes: dict[str, dict[str, int]] = {}
        event |= {"hospitals": {}, "missing": {}, "refused": {}}

    def exchange(
        self,
        step: str,
        names: Sequence[str],
        request: bytes,
        take: Callable[[str, bytes], Any],
        own: Mapping[str, bytes] | None = None,
    ) -> Collected:
        """Ask, and have each answer taken; too few good answers end the round."""

        def accept(hospital: str, content: bytes) -> Event:
            return take(hospital, content) or {}

        arrived = collect(self._engine, names, request, accept, step=step, progress=self._progress, own=own)
        for name, said in arrived.hospitals.items():
            sizes = self._bytes.setdefault(name, {"bytes_up": 0, "bytes_down": 0})
            for key in sizes:
                sizes[key] += said[key]
        for key, reasons in (("missing", arrived.missing), ("refused", arrived.refused)):
            self._event[key] |= {name: f"At {step}: {reason}" for name, reason in reasons.items()}
        arrived.require(self._threshold, f"{self._what}, {step}", "Hospitals that a sealed sum takes")
        return arrived

    def tell(
        self, current: SealedSum, arrived: Collected, sealing: Mapping[str, float], opening: float
    ) -> None:
        """What the history shall say of a sum that was opened."""
        self._event["hospitals"] = {
            name: {**self._bytes[name], "seconds": sealing[name]} for name in current.survivors
        }
        self._event["sealing"] = {
            "participants": len(current.plan.participants),
            "survivors": len(current.survivors),
            "dropped": list(current.dropped),
            "threshold": current.threshold,
            "seconds": {"sealing": sum(sealing.values()), "opening": opening},
        }
        self._event["seconds"] = {
            "training": arrived.seconds,
            "aggregation": arrived.summing_seconds + opening,
        }
