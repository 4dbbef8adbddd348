"""The coordinator inside FLARE's server: a component that runs studies and answers the lead.

The lead's commands come as FLARE's own admin commands do: over mutual TLS, from a logged-in user, allowed
by the site's ``authorization.json`` and written to FLARE's audit log. Hospitals are reached over the same
connections, at their relays. No FLARE job is involved, so nothing can be sent along with one.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, ReturnCode
from nvflare.fuel.f3.message import Message
from nvflare.fuel.hci.conn import Connection
from nvflare.fuel.hci.reg import CommandModule, CommandModuleSpec, CommandSpec
from nvflare.fuel.hci.server.authz import PreAuthzReturnCode
from nvflare.fuel.hci.server.constants import ConnProps
from nvflare.private.fed.server.server_cmd_modules import ServerCommandModules

from fedlens.arm_path import arm_path
from fedlens.coordinator.checkpoints import advice_folder, checkpoint_path
from fedlens.coordinator.deciding import decided
from fedlens.coordinator.history import HISTORY_NAME, Event, read_history
from fedlens.decision.bundle import BUNDLE_NAMES
from fedlens.deployment.flare_config import COMMAND
from fedlens.deployment.gate import guard_coordinator
from fedlens.deployment.headers import CHANNEL
from fedlens.deployment.kit import Kit, open_kit
from fedlens.deployment.notices import tell
from fedlens.deployment.study_run import (
    SUBMISSION_NAME,
    Standing,
    StudyRun,
    keep_submission,
    study_folder,
)
from fedlens.deployment.submission import Submission
from fedlens.engines.nvflare import Headers
from fedlens.errors import DeploymentError, FedLensError, RoundError
from fedlens.protocol.codec import decode
from fedlens.status import status_of

FETCH_BYTES = 2 << 20
_MOST_SUBMISSION = 2 << 30

Answer = dict[str, Any]


class CellCarrier:
    """Calls relays over FLARE's cells.

    Args:
        cell: FLARE's server cell.
    """

    def __init__(self, cell: Any) -> None:
        self._cell = cell

    def call(
        self, hospital: str, topic: str, headers: Headers, content: bytes, seconds: float
    ) -> tuple[Headers, bytes] | None:
        """See :class:`fedlens.engines.nvflare.Carrier`."""
        request = Message(dict(headers), content)
        reply = self._cell.send_request(
            channel=CHANNEL, topic=topic, target=hospital, request=request, timeout=seconds, optional=True
        )
        if reply is None or reply.get_header(MessageHeaderKey.RETURN_CODE) != ReturnCode.OK:
            return None
        # Of another type it is no relay's answer; bytes() of a number would fill the memory.
        is_content = isinstance(reply.payload, bytes | bytearray | memoryview)
        return dict(reply.headers), bytes(reply.payload) if is_content else b""


class Desk(FLComponent):  # type: ignore[misc]
    """Takes studies, runs one at a time, and says where they stand."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._run: StudyRun | None = None
        self._cell: Any = None
        self._kit: Kit | None = None
        self._uploads: dict[str, bytearray] = {}
        ServerCommandModules.register_cmd_module(_Commands(self))

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """FLARE tells that the server has started or ends."""
        if event_type == EventType.SYSTEM_START:
            self._cell = fl_ctx.get_engine().server.cell
            guard_coordinator(self._cell)
            self._kit = open_kit(_kit_folder(fl_ctx), "coordinator")
            tell(self._kit.folder, f"coordinator of {self._kit.federation} is ready on port {self._kit.port}")
        elif event_type == EventType.SYSTEM_END and self._run is not None:
            self._run.stop()

    def answer(self, what: str, asked: dict[str, Any]) -> Answer:
        """Answer one command of the lead.

        Raises:
            FedLensError: It cannot be done.
        """
        answers: dict[str, Callable[..., Answer]] = {
            "upload": self._upload,
            "submit": self._submit,
            "resume": self._resume,
            "stop": self._stop,
            "status": self._status,
            "studies": self._studies,
            "fetch": self._fetch,
        }
        if what not in answers:
            raise DeploymentError(f"The coordinator knows no command {what[:40]!r}.")
        return answers[what](**asked)

    def _upload(self, upload: str, content: str) -> Answer:
        """One more piece of a submission."""
        with self._lock:
            if upload not in self._uploads:
                # An upload that was given up must not stay in memory.
                self._uploads = {upload: bytearray()}
            self._uploads[upload] += base64.b64decode(content)
            if len(self._uploads[upload]) > _MOST_SUBMISSION:
                del self._uploads[upload]
                raise DeploymentError("The submission is too large.")
        return {}

    def _submit(self, upload: str) -> Answer:
        with self._lock:
            self._refuse_second()
            content = self._uploads.pop(upload, None)
            if content is None:
                raise DeploymentError("The submission did not arrive whole.", fix="Submit it again.")
            return self._begin(keep_submission(self._at(), bytes(content)))

    def _resume(self, name: str) -> Answer:
        with self._lock:
            self._refuse_second()
            self._folder(name)
            return self._begin(name)

    def _begin(self, name: str) -> Answer:
        kit = self._at()
        self._run = StudyRun(kit, name, CellCarrier(self._cell))
        self._run.start()
        tell(kit.folder, f"study {name} begins")
        run = self._run
        return {"study": name, "digest": run.study.digest(), "fingerprint": run.submission.fingerprint}

    def _stop(self, name: str) -> Answer:
        run = self._run_of(name)
        if run is None or not run.is_alive():
            raise RoundError(f"Study {name} is not running.")
        run.stop()
        return {}

    def _status(self, name: str, since: int = 0) -> Answer:
        """State, progress, and the history from event ``since`` on."""
        run = self._run_of(name)
        # Before the history: whoever is told of the end must have been told of every event.
        told = dataclasses.asdict(run.standing) if run else None
        arm = self._arm(name)
        events = read_history(arm) if (arm / HISTORY_NAME).exists() else []
        told = told or dataclasses.asdict(_left(arm, events))
        return {**told, "study": name, "events": events[since:], "count": len(events)}

    def _studies(self) -> Answer:
        return {"studies": [{"study": name, "state": self._status(name)["state"]} for name in self._names()]}

    def _fetch(self, name: str, file: str, start: int = 0) -> Answer:
        """A piece of one of a study's result files, by the name it has here."""
        arm = self._arm(name)
        files = {"history": arm / HISTORY_NAME}
        events = read_history(arm)
        if decided(events):
            files |= {name: advice_folder(arm) / name for name in BUNDLE_NAMES}
        ended = next((event for event in events if event["event"] == "end"), None)
        for key in ("rounds", "best_round"):
            if ended is not None:
                files[key] = checkpoint_path(arm, ended[key])
        if file not in files:
            raise RoundError(f"Study {name} has no {file[:40]} to fetch.", why="It has not finished.")
        with files[file].open("rb") as stream:
            stream.seek(start)
            content = stream.read(FETCH_BYTES)
        return {
            "content": base64.b64encode(content).decode(),
            "size": files[file].stat().st_size,
            "name": files[file].name,
        }

    def _run_of(self, name: str) -> StudyRun | None:
        """The study's thread, at work or ended, if it is the last one begun here."""
        run = self._run
        return run if run is not None and run.study.name == name else None

    def _arm(self, name: str) -> Path:
        if run := self._run_of(name):
            return run.arm
        folder = self._folder(name)
        return arm_path(folder, decode((folder / SUBMISSION_NAME).read_bytes(), Submission).study)

    def _folder(self, name: str) -> Path:
        known = self._names()
        # By comparing names, no name can lead out of the folder.
        if name not in known:
            raise RoundError(
                f"The coordinator has no study {name[:40]!r}.", why=f"It has: {', '.join(known) or 'none'}."
            )
        return study_folder(self._at(), name)

    def _names(self) -> list[str]:
        """Studies that were submitted; a folder without a submission is what a full disk left."""
        return sorted(path.parent.name for path in self._at().studies.glob(f"*/{SUBMISSION_NAME}"))

    def _refuse_second(self) -> None:
        if self._run is not None and self._run.is_alive():
            raise RoundError(
                f"Study {self._run.study.name} is running.",
                why="A hospital answers one study at a time.",
                fix="Wait for its end, or stop it: fedlens stop",
            )

    def _at(self) -> Kit:
        if self._kit is None:
            raise DeploymentError("The coordinator is still starting.", fix="Try again in a moment.")
        return self._kit


class _Commands(CommandModule):  # type: ignore[misc]
    """FLARE's admin command ``fedlens``: what is asked travels beside it, out of the audit log."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def get_spec(self) -> CommandModuleSpec:
        command = CommandSpec(
            name=COMMAND,
            description="FedLens studies",
            usage=f"{COMMAND} upload|submit|resume|stop|status|studies|fetch",
            handler_func=self._handle,
            authz_func=self._authorise,
        )
        return CommandModuleSpec(name=COMMAND, cmd_specs=[command])

    def _authorise(self, conn: Connection, args: list[str]) -> PreAuthzReturnCode:
        return PreAuthzReturnCode.REQUIRE_AUTHZ

    def _handle(self, conn: Connection, args: list[str]) -> None:
        try:
            answer = self._desk.answer(
                args[1] if len(args) > 1 else "", conn.get_prop(ConnProps.CMD_PROPS) or {}
            )
        except FedLensError as error:
            answer = {
                "error": {"what": error.what, "why": error.why, "fix": error.fix, "code": error.exit_code}
            }
        except (TypeError, ValueError, OSError) as error:
            answer = {"error": {"what": f"The command failed: {error}.", "why": "", "fix": "", "code": 8}}
        conn.append_string(json.dumps(answer))


def _left(arm: Path, events: list[Event]) -> Standing:
    """Standing of a study that no thread is at, by its history alone."""
    left = status_of(arm, events)
    state = "interrupted" if left.state == "running" else left.state
    return Standing(state, left.reason if state == "failed" else "")


def _kit_folder(fl_ctx: FLContext) -> Path:
    workspace = fl_ctx.get_prop(FLContextKey.WORKSPACE_ROOT) or fl_ctx.get_engine().args.workspace
    return Path(str(workspace)).resolve().parent
