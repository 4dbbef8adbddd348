"""After the last round: advice for the network that the study ends with, fitted from sums over hospitals.

Two steps, since scores need the temperature and distances the covariance. A study whose hospitals do not
answer them keeps its network and ends without advice; its history says why.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from fedlens.coordinator.advice import basis_step, scores_step
from fedlens.coordinator.checkpoints import RunState, advice_folder, write_checkpoint
from fedlens.coordinator.gathering import HELD_OUT, Gathering
from fedlens.coordinator.history import Event, History
from fedlens.coordinator.schedule import no_common_network
from fedlens.coordinator.settings import CoordinatorSettings
from fedlens.decision.bundle import Basis, DecisionBundle, load_bundle
from fedlens.errors import DataError, RoundError, StoppedError
from fedlens.models.weights import weights_digest
from fedlens.progress import Progress
from fedlens.protocol.messages import BasisRequest, ScoresRequest

DECISION = "decision"
"""Kind of event."""


def decided(events: Sequence[Event]) -> bool:
    """Whether a history says that advice was fitted."""
    return any(event["event"] == DECISION and not event["reason"] for event in events)


def advice_said(events: Sequence[Event]) -> str:
    """What a history says of advice, in one sentence for people; empty where it says nothing."""
    event = next((event for event in reversed(events) if event["event"] == DECISION), None)
    if event is None:
        return ""
    if event["reason"]:
        return f"No advice was fitted across hospitals: {event['reason']}"
    return (
        f"Advice was fitted over {len(event['scores']['hospitals'])} hospitals: temperature "
        f"{event['temperature']:.3f}, {event['training_images']:,} training and "
        f"{event['validation_images']:,} validation images."
    )


def advise(
    settings: CoordinatorSettings,
    gathering: Gathering,
    state: RunState,
    final: RunState,
    history: History,
    folder: Path,
    progress: Progress,
) -> DecisionBundle | None:
    """Advice for the network that the study ends with: kept from an earlier start, or fitted and kept now.

    Args:
        settings: The coordinator's part of the study.
        gathering: How sums come together.
        state: After the last round, which the sums are of.
        final: The state whose network the study ends with.
        history: Told what was fitted, or why nothing was.
        folder: The run folder.
        progress: Told of every hospital's reply.

    Raises:
        StoppedError: The study was stopped.
        CheckpointError: What was kept is torn, or of another network.
    """
    place = advice_folder(folder)
    if decided(history.events):
        return load_bundle(place, weights_sha256=weights_digest(final.parameters), classes=settings.classes)
    if not settings.decision.federated or not settings.features:
        return None
    event: Event = {"event": DECISION, "round": final.round, "reason": no_common_network(settings)}
    bundle = None
    if not event["reason"]:
        try:
            bundle = _fit(settings, gathering, final, state.round, event, progress)
        except StoppedError:
            raise
        except (RoundError, DataError) as error:
            event["reason"] = f"{error.what} {error.why}".strip()
    if bundle is not None:
        bundle.save(place)
    history.append(event)
    if bundle is not None:
        # Only then does the event stay: a resumed run tries again what came to nothing.
        write_checkpoint(folder, dataclasses.replace(state, events=len(history)))
    return bundle


def _fit(
    settings: CoordinatorSettings,
    gathering: Gathering,
    final: RunState,
    rounds: int,
    event: Event,
    progress: Progress,
) -> DecisionBundle:
    """What hospitals' sums give; ``event`` is told what came."""
    asked = (settings.study, rounds, settings.fingerprint, HELD_OUT, final.parameters)
    event["basis"], event["scores"] = {}, {}
    first = basis_step(len(settings.classes), settings.features)
    sums = gathering.add_up(first, BasisRequest(*asked), event["basis"], progress)
    basis = Basis.fit(sums, settings.decision)
    request = ScoresRequest(*asked, temperature=basis.temperature, statistics=basis.statistics.numbers())
    scores = gathering.add_up(scores_step(len(settings.classes)), request, event["scores"], progress)
    bundle = DecisionBundle.of(
        basis,
        scores,
        classes=settings.classes,
        weights_sha256=weights_digest(final.parameters),
        hospitals=len(event["scores"]["hospitals"]),
        settings=settings.decision,
    )
    event |= {
        "temperature": basis.temperature,
        "training_images": sum(basis.known.images.values()),
        "validation_images": bundle.facts.validation_images,
    }
    return bundle
