"""One study at the coordinator: wait for its hospitals, have them join, run its rounds."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from fedlens.arm_path import arm_path
from fedlens.coordinator.checkpoints import last_round
from fedlens.coordinator.deciding import advice_said
from fedlens.coordinator.gathering import Gathering
from fedlens.coordinator.history import Event
from fedlens.coordinator.plain import PlainGathering
from fedlens.coordinator.rounds import run_rounds
from fedlens.coordinator.sealed import SealedGathering, SealingSetup
from fedlens.deployment.kit import Kit
from fedlens.deployment.submission import Submission, portable_settings
from fedlens.engines.nvflare import Carrier, FlareEngine
from fedlens.errors import FedLensError, NotEnoughHospitalsError, RoundError, StoppedError
from fedlens.files import write_bytes
from fedlens.protocol.codec import decode, encode
from fedlens.protocol.messages import Joined, JoinRequest
from fedlens.protocol.roster import Roster
from fedlens.sealing_files import (
    ROSTER_NAME,
    SEGMENT_NAME,
    fewest_in_a_sum,
    load_roster,
    next_segment,
    save_roster,
)

SUBMISSION_NAME = "submission.bin"
LOG_NAME = "study.log"
_POLL_SECONDS = 2.0
_TRIES = 3
"""How often one round is tried before the study stops."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass
class Standing:
    """Where a study stands at this moment; what it did stands in its history.

    Attributes:
        state: ``waiting``, ``running``, ``finished``, ``stopped``, ``failed`` or ``interrupted``.
        reason: Why it waits or ended.
        step: What is going on.
        done: How far that is.
        total: Of how much; 0 where unknown.
        hospitals: What each hospital is at.
    """

    state: str = "waiting"
    reason: str = ""
    step: str = ""
    done: int = 0
    total: int = 0
    hospitals: dict[str, str] = dataclasses.field(default_factory=dict)


def study_folder(kit: Kit, name: str) -> Path:
    """Where the coordinator keeps a study."""
    return kit.studies / name


class StudyRun(threading.Thread):
    """Runs one study to its end.

    Args:
        kit: The coordinator's.
        name: Of the study; its folder holds the submission.
        carrier: Calls the hospitals' relays.
    """

    def __init__(self, kit: Kit, name: str, carrier: Carrier) -> None:
        super().__init__(name=f"study {name}", daemon=True)
        self._kit = kit
        self._carrier = carrier
        self._stop_asked = threading.Event()
        self.folder = study_folder(kit, name)
        self.submission = decode((self.folder / SUBMISSION_NAME).read_bytes(), Submission)
        self.study = self.submission.study
        self.standing = Standing()

    @property
    def arm(self) -> Path:
        """History, checkpoints and roster of the study's one arm, laid out as in any run folder."""
        return arm_path(self.folder, self.study)

    def stop(self) -> None:
        """End it at the next chance; it can be resumed."""
        self._note("asked to stop")
        self._stop_asked.set()

    def run(self) -> None:
        """The thread's work; how it ended stands in ``standing``."""
        try:
            self._run()
        except StoppedError as error:
            self._end("stopped", error.what)
        except FedLensError as error:
            self._end("failed", f"{error.what} {error.why}".strip())
        except OSError as error:
            self._end(
                "failed", f"The coordinator's disk or system failed: {error}. Nothing was half-written."
            )
        except BaseException as error:
            # FLARE's process lives on, so whoever follows the study must not wait for ever.
            _log.exception("study %s", self.study.name)
            self._end("failed", f"A fault in the program: {type(error).__name__}: {error}.")
            raise

    def _run(self) -> None:
        names = self._hospitals()
        self._note(f"begins with {', '.join(names)}")
        members = self._kit.members().roster(names)
        engine = FlareEngine(
            members,
            self._kit.identity(),
            self.study.digest(),
            self._carrier,
            self.study.network,
            told=self._told,
            stop=self._stop_asked,
        )
        roster = self._joined(engine, members)
        self.standing.state = "running"
        self._rounds(engine, roster)
        self._end("finished", "")

    def _rounds(self, engine: FlareEngine, roster: Roster) -> None:
        """All rounds; one for which too few hospitals answered is tried again a few times."""
        tries, before = 0, -1
        while True:
            try:
                ended = run_rounds(
                    self.submission.coordinator_settings(),
                    self.submission.parameters,
                    engine,
                    self.arm,
                    resume=True,
                    gathering=self._gathering(engine, roster),
                    watch=self._watch,
                    progress=self._progress,
                )
            except NotEnoughHospitalsError as error:
                done = last_round(self.arm)
                tries = tries + 1 if done == before else 1
                before = done
                if tries == _TRIES:
                    raise
                self._wait_for_enough(engine, error)
            else:
                if said := advice_said(ended.history):
                    self._note(said)
                return

    def _hospitals(self) -> tuple[str, ...]:
        """The study's hospitals, in the order of the federation."""
        members = self._kit.members()
        for name in self.study.hospitals.names:
            members.key(name)
        return tuple(name for name in members.hospitals if name in self.study.hospitals.names)

    def _joined(self, engine: FlareEngine, members: Roster) -> Roster:
        """The roster with every hospital's signature; all hospitals that are there have seen it."""
        path = self.arm / ROSTER_NAME
        roster = load_roster(path) if path.exists() else members
        if roster.digest != members.digest:
            raise RoundError(
                f"{path} is of other hospitals or keys than the federation has now.",
                why="A roster does not change within a study.",
                fix="Submit the study again under another name.",
            )
        first = not path.exists()
        unsigned = tuple(name for name in roster.members if name not in roster.signatures)
        if unsigned:
            self._await(engine, unsigned, len(unsigned))
            answers = self._join(engine, unsigned, roster)
            signed = {joined.hospital: joined.signature for joined in answers}
            roster = Roster(roster.members, roster.coordinator, {**roster.signatures, **signed})
        roster.check()
        present = self._await(engine, engine.hospitals, len(engine.hospitals) if first else self._fewest())
        self._join(engine, present, roster)
        save_roster(path, roster)
        return roster

    def _join(self, engine: FlareEngine, names: Sequence[str], roster: Roster) -> list[Joined]:
        self._progress("joining", 0, len(names))
        request = JoinRequest(
            study=self.study.digest(),
            settings=portable_settings(self.study),
            fingerprint=self.submission.fingerprint,
            hospitals=tuple(roster.members),
            coordinator=roster.coordinator,
            keys=dict(roster.members),
            signatures=dict(roster.signatures) if len(roster.signatures) == len(roster.members) else {},
        )
        answers = []
        for done, reply in enumerate(engine.exchange(names, encode(request)), start=1):
            if reply.content is None:
                raise RoundError(
                    f"Hospital {reply.hospital} does not take part: {reply.error}",
                    fix="Mend that, then go on with: fedlens resume",
                )
            answers.append(decode(reply.content, Joined))
            self._progress("joining", done, len(names))
        return answers

    def _gathering(self, engine: FlareEngine, roster: Roster) -> Gathering:
        settings = self.submission.coordinator_settings()
        if not self.study.sealed(len(roster.members)):
            return PlainGathering(settings, engine)
        # Of the kit, not of the study: the same settings may come again under another name, and
        # hospitals, which know a study by its settings, refuse a segment that they have seen.
        segment = next_segment(self._kit.folder / SEGMENT_NAME)
        setup = SealingSetup.of(self.study, roster, self._kit.identity(), segment, self._fewest())
        return SealedGathering(settings, engine, setup)

    def _fewest(self) -> int:
        """Hospitals that a round takes."""
        return fewest_in_a_sum(self.study, len(self.study.hospitals.names))

    def _wait_for_enough(self, engine: FlareEngine, error: NotEnoughHospitalsError) -> None:
        self.standing.reason = str(error)
        self._note(str(error))
        self._await(engine, engine.hospitals, self._fewest(), str(error))
        self.standing.state = "running"

    def _await(
        self, engine: FlareEngine, names: Sequence[str], fewest: int, before: str = ""
    ) -> tuple[str, ...]:
        """Wait until enough of these hospitals are in reach; returns those that are.

        Raises:
            NotEnoughHospitalsError: ``network.wait`` has passed; names who is away.
            StoppedError: The study was stopped.
        """
        until = time.monotonic() + self.study.network.wait
        while True:
            reached = engine.reachable()
            here = tuple(name for name in names if name in reached)
            if len(here) >= fewest:
                self.standing.reason = ""
                return here
            away = ", ".join(name for name in names if name not in here)
            self.standing.state = "waiting"
            self.standing.reason = f"{len(here)} of {len(names)} hospitals are in reach; away: {away}"
            if self._stop_asked.wait(_POLL_SECONDS):
                raise StoppedError("The study was stopped.", fix="Go on with: fedlens resume")
            if time.monotonic() > until:
                raise NotEnoughHospitalsError(
                    f"Waited {self.study.network.wait:.0f} seconds for {fewest} hospitals; away: {away}.",
                    why=before,
                    fix="Start these hospitals, then go on with: fedlens resume",
                )

    def _watch(self, event: Event) -> None:
        away = [name for name in event["participants"] if name not in event["hospitals"]]
        self._note(f"round {event['round']} done" + (f" without {', '.join(away)}" if away else ""))

    def _note(self, text: str) -> None:
        """One line in the study's own log, with the time."""
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(text.split())}\n"
        # A full disk must not keep a study from saying how it ended.
        with contextlib.suppress(OSError), (self.folder / LOG_NAME).open("a", encoding="utf-8") as stream:
            stream.write(line)

    def _progress(self, step: str, done: int, total: int) -> None:
        self.standing.step, self.standing.done, self.standing.total = step, done, total
        if not done:
            self.standing.hospitals = {}

    def _told(self, hospital: str, step: str, percent: int) -> None:
        self.standing.hospitals = {**self.standing.hospitals, hospital: f"{step} {percent} %"}

    def _end(self, state: str, reason: str) -> None:
        self._note(f"{state}: {reason}" if reason else state)
        self.standing.hospitals = {}
        self.standing.reason = reason
        self.standing.state = state


def keep_submission(kit: Kit, content: bytes) -> str:
    """Make a study's folder with what was submitted; returns the study's name.

    Raises:
        FedLensError: It cannot be read, or a study of that name is there already.
    """
    study = decode(content, Submission).study
    folder = study_folder(kit, study.name)
    if (folder / SUBMISSION_NAME).exists():
        raise RoundError(
            f"The coordinator has a study named {study.name} already.",
            fix="Go on with it: fedlens resume. Or give this one another name.",
        )
    write_bytes(folder / SUBMISSION_NAME, content)
    return study.name
