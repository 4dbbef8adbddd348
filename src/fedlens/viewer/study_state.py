"""Where a study stands: at which arm and round, for how long yet, and whether anything still moves.

A history cannot tell a running study from an interrupted one. What tells them apart is whether files change:
hospitals keep their state after each training, so that silence much longer than a round is a bad sign.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fedlens.comparing import arm_names
from fedlens.coordinator.history import HISTORY_NAME
from fedlens.reports.absence import Event
from fedlens.reports.federation_tables import of_kind, round_seconds
from fedlens.reports.measures import LOCAL
from fedlens.reports.paper import ARM_LABELS
from fedlens.status import status_of
from fedlens.study import Study
from fedlens.viewer.study_files import ArmFolder, StudyFiles, changed

State = Literal["waiting", "running", "quiet", "stopped", "finished"]

WORDS: dict[State, str] = {
    "waiting": "Waiting",
    "running": "Running",
    "quiet": "No news",
    "stopped": "Stopped",
    "finished": "Finished",
}
_ENDS = {"rounds": "All rounds are done.", "patience": "Validation no longer improved."}
_ASKED, _ASKED_SAID = "asked to stop", "It was asked to stop."
_LOG_STATES: dict[str, State] = {"finished": "finished", "stopped": "stopped", "failed": "stopped"}

_QUIET_SECONDS = 300.0
_QUIET_FIRST_SECONDS = 1800.0
"""Nothing is known yet of how long a round takes."""
_QUIET_ROUNDS = 3.0
_LAST_ROUNDS = 5


@dataclass(frozen=True)
class ArmState:
    """One arm.

    Attributes:
        seed: Training seed.
        arm: As in :mod:`fedlens.arms`.
        place: Its files; None while it has not begun.
        state: Of the arm alone.
        reason: Why it ended or waits; may be empty.
        done: Rounds.
        planned: Rounds; 0 where nothing is known yet.
        left: Seconds that the remaining rounds take if they go on as the last ones; None where unknown.
        told: When its history last grew, in seconds since 1970; 0 before.
        sign: When anything of it was last written.
    """

    seed: int
    arm: str
    place: ArmFolder | None
    state: State
    reason: str = ""
    done: int = 0
    planned: int = 0
    left: float | None = None
    told: float = 0.0
    sign: float = 0.0

    @property
    def label(self) -> str:
        """The arm in words."""
        return arm_label(self.arm)


@dataclass(frozen=True)
class Standing:
    """The whole study.

    Attributes:
        state: Of all arms together.
        reason: A sentence on it; may be empty.
        arms: Those that have begun and, in a comparison, those that are still to come.
        current: The arm that is at work, or was last; None before the first.
        sign: When anything was last written, in seconds since 1970; 0 where nothing was.
    """

    state: State
    reason: str
    arms: tuple[ArmState, ...]
    current: ArmState | None
    sign: float


def arm_label(arm: str) -> str:
    """An arm in words."""
    if arm.startswith(LOCAL):
        return f"Hospital {arm.removeprefix(LOCAL)} alone"
    return ARM_LABELS.get(arm, arm)


def standing(files: StudyFiles, study: Study | None, now: float) -> Standing:
    """Where the study stands.

    Args:
        files: Of the run folder.
        study: Its settings; None where none were kept.
        now: Seconds since 1970.

    Raises:
        HistoryError: A history is damaged.
    """
    begun = tuple(_arm_state(files, study, place, now) for place in files.arms())
    arms = (*begun, *_to_come(begun, study, _hospitals(files)))
    if not begun:
        return _not_begun(files, arms, now)
    open_arms = [arm for arm in begun if arm.state != "finished"]
    current = max(open_arms or begun, key=lambda arm: arm.sign)
    sign = max(arm.sign for arm in begun)
    if open_arms:
        return Standing(current.state, current.reason, arms, current, sign)
    measured = files.measured()
    if len(begun) == len(arms) and (measured >= current.told or files.at_coordinator):
        return Standing("finished", current.reason, arms, current, max(sign, measured))
    lasting = now - sign > _QUIET_FIRST_SECONDS
    if len(begun) < len(arms):
        return Standing("quiet" if lasting else "running", "The next arm is to begin.", arms, current, sign)
    reason = "Training is done. Test images are being measured and explained, and the report is to follow."
    return Standing(
        "finished" if lasting else "running", current.reason if lasting else reason, arms, current, sign
    )


def _arm_state(files: StudyFiles, study: Study | None, place: ArmFolder, now: float) -> ArmState:
    events = files.events(place)
    found = status_of(place.folder, events)
    told = changed(place.folder / HISTORY_NAME)
    state, reason = _state(files, events, found.state, found.reason)
    sign = max([told, *map(changed, files.result_files(place))])
    if state in ("running", "waiting"):
        sign = max(sign, files.last_sign(place))
    if state in ("running", "waiting") and now - sign > _patience(files, events, study):
        state = "quiet"
    left = _left(events, study, found.rounds) if state == "running" else None
    return ArmState(
        place.seed, place.arm, place, state, reason, len(found.events), found.rounds, left, told, sign
    )


def _state(files: StudyFiles, events: Sequence[Event], state: str, reason: str) -> tuple[State, str]:
    """What history and, at a coordinator, the log say."""
    log = files.log()
    if state == "finished":
        return "finished", _ENDS.get(reason, reason)
    if log:
        word, _, why = log[-1].partition(": ")
        if word in _LOG_STATES:
            return _LOG_STATES[word], why
        if state == "failed" or not events:
            return "waiting", log[-1]
        return "running", _ASKED_SAID if log[-1] == _ASKED else _under_way(events)
    if state == "failed":
        return "stopped", reason
    return "running", _under_way(events)


def _under_way(events: Sequence[Event]) -> str:
    """What happens between the last round and the end; empty before."""
    rounds = of_kind(events, "round")
    over = bool(rounds) and rounds[-1]["round"] == events[0]["rounds"]
    return "All rounds are done; advice is being fitted." if over else ""


def _not_begun(files: StudyFiles, arms: tuple[ArmState, ...], now: float) -> Standing:
    """Before the first history: images are prepared, or hospitals are waited for."""
    marks = [found[0] / 1e9 for _, found in files.stamp() if found]
    sign = max(marks, default=0.0)
    log = files.log()
    word, _, why = log[-1].partition(": ") if log else ("", "", "")
    if word in _LOG_STATES:
        return Standing(_LOG_STATES[word], why, arms, None, sign)
    reason = "Hospitals are waited for." if files.at_coordinator else "No round has begun yet."
    state: State = "quiet" if sign and now - sign > _QUIET_FIRST_SECONDS else "waiting"
    return Standing(state, reason, arms, None, sign)


def _patience(files: StudyFiles, events: Sequence[Event], study: Study | None) -> float:
    """Seconds of silence after which something seems to be wrong."""
    rounds = of_kind(events, "round")
    network = study.network if study and files.at_coordinator else None
    if not rounds:
        return max(_QUIET_FIRST_SECONDS, network.deadline if network else 0.0)
    longest = max(round_seconds(event) for event in rounds[-_LAST_ROUNDS:])
    return max(_QUIET_SECONDS, _QUIET_ROUNDS * longest, network.wait if network else 0.0)


def _left(events: Sequence[Event], study: Study | None, planned: int) -> float | None:
    """Seconds for the remaining rounds, by the mean of the last ones, measured rounds among them."""
    rounds = of_kind(events, "round")
    if not rounds:
        return None
    cycle = max(study.federation.evaluate_every, study.explanation.every) if study else 0
    last = rounds[-max(_LAST_ROUNDS, cycle) :]
    return float(planned - rounds[-1]["round"]) * statistics.fmean(map(round_seconds, last))


def _to_come(
    begun: Sequence[ArmState], study: Study | None, hospitals: Sequence[str]
) -> tuple[ArmState, ...]:
    """Arms of a comparison that have not begun, in the order of their training.

    ``fedlens run`` leaves one federated arm and nothing else; whatever has more is a comparison.
    """
    if study is None or not _is_comparison(begun, study):
        return ()
    there = {(arm.seed, arm.arm) for arm in begun}
    return tuple(
        ArmState(seed, name, None, "waiting")
        for seed in study.compare.seeds
        for name in arm_names(study, hospitals)
        if (seed, name) not in there
    )


def _hospitals(files: StudyFiles) -> tuple[str, ...]:
    """The roster, as far as an arm that has begun knows it."""
    starts = (files.events(place)[:1] for place in files.arms() if not place.alone)
    return next((tuple(start[0]["hospitals"]) for start in starts if start), ())


def _is_comparison(begun: Sequence[ArmState], study: Study) -> bool:
    return len(begun) > 1 or any(arm.arm != "federated" or arm.seed != study.seed for arm in begun)
