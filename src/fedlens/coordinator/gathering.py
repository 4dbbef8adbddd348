"""How a round's numbers come together: in the clear (``plain.py``) or sealed (``sealed.py``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fedlens.coordinator.advice import AdviceStep, T
from fedlens.coordinator.collection import Collected
from fedlens.coordinator.history import Event
from fedlens.progress import Progress
from fedlens.protocol.messages import MeasureRequest, Parameters, RoundPlan

HELD_OUT = "validation"
"""The split that hospitals are asked to measure and explain."""


@dataclass(frozen=True)
class Trained:
    """What a round of training came to.

    Attributes:
        mean: Mean update of floating arrays by image count, float64 (float32 from narrow sealed sums);
            integer counters as they shall be.
        images: Training images behind it.
        loss_sum: Over ``seen`` images.
        correct: Of those, classified rightly while training.
        seen: Images passed through training.
    """

    mean: Parameters = field(repr=False)
    images: int
    loss_sum: float
    correct: int
    seen: int


class Gathering(Protocol):
    """One study's way of bringing hospitals' numbers together.

    Attributes:
        sealed: Whether the coordinator sees sums only.
    """

    sealed: bool

    def begin(self, carried: Parameters, progress: Progress) -> Event | None:
        """Get ready, at the start of a run and after every interruption.

        Args:
            carried: From the last checkpoint; empty in a new study.
            progress: Told of every hospital's reply.

        Returns:
            An event for the history, or None.
        """
        ...

    def train(
        self,
        plan: RoundPlan,
        parameters: Parameters,
        template: Parameters,
        participants: Sequence[str],
        event: Event,
        progress: Progress,
    ) -> Trained:
        """Steps 2 to 5: have hospitals train, and average their updates.

        Args:
            plan: Of the round.
            parameters: The global model.
            template: Arrays that updates hold.
            participants: Hospitals of the round.
            event: Told what happened, also where the round fails.
            progress: Told of every hospital's reply.

        Raises:
            NotEnoughHospitalsError: Too few usable updates.
        """
        ...

    def evaluate(
        self, plan: RoundPlan, parameters: Parameters, event: Event, progress: Progress
    ) -> float | None:
        """Step 7: have all hospitals measure a global model on their validation images.

        Args:
            plan: Of the round.
            parameters: The global model after it.
            event: Told the federation's figures and what happened, also where it fails.
            progress: Told of every hospital's reply.

        Returns:
            The federation's validation loss; None without images.

        Raises:
            NotEnoughHospitalsError: Too few usable evaluations.
        """
        ...

    def explain(self, plan: RoundPlan, parameters: Parameters, event: Event, progress: Progress) -> None:
        """Step 7 too: have all hospitals measure their maps, and tell them what these came to together.

        Args:
            plan: Of the round.
            parameters: The global model after it.
            event: Told the federation's figures and what happened, also where it fails.
            progress: Told of every hospital's reply.

        Raises:
            NotEnoughHospitalsError: Too few usable explanations.
        """
        ...

    def add_up(self, step: AdviceStep[T], request: MeasureRequest, event: Event, progress: Progress) -> T:
        """After the last round: have all hospitals add up what advice is fitted from.

        Args:
            step: Which of the two steps.
            request: What they are asked.
            event: Told what happened, also where it fails.
            progress: Told of every hospital's reply.

        Raises:
            NotEnoughHospitalsError: Too few usable answers.
            RoundError: Sealed totals contradict each other.
        """
        ...

    def carried(self) -> Parameters:
        """What must survive an interruption beside model and moments."""
        ...


def outcome(arrived: Collected) -> Event:
    """Who answered, who did not, and whose answer was refused."""
    return {"hospitals": arrived.hospitals, "missing": arrived.missing, "refused": arrived.refused}
