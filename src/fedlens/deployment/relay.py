"""The half of a hospital that faces the network: a component of FLARE's client, and no more than a relay.

It passes each message of the coordinator to the hospital's service over a Unix socket and keeps the answer
until it is fetched. It opens no image and no identity key, and what passes through it is signed or sealed. It
does run as the service's user, whose files that user can read (docs/threat-model.md, B3).
It lives in FLARE's client process, which outlasts studies: a hospital that was away is reached again as soon
as that process is back.

========== ======================================================================================
topic      what the coordinator says
========== ======================================================================================
``ping``   are you there?
``ask``    here is a message; a second copy with the same errand is not another message
``fetch``  is the answer ready?
``cancel`` I no longer wait for it
========== ======================================================================================
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, ReturnCode
from nvflare.fuel.f3.cellnet.fqcn import FQCN
from nvflare.fuel.f3.message import Message

from fedlens.deployment.gate import guard_hospital
from fedlens.deployment.headers import (
    CHANNEL,
    DONE,
    ERRAND,
    ERROR,
    FAILED,
    HERE,
    OWN,
    PERCENT,
    SIGNATURE,
    STATE,
    STEP,
    STUDY,
    UNKNOWN,
    WAIT,
    WORKING,
)
from fedlens.deployment.kit import read_kit
from fedlens.deployment.notices import tell
from fedlens.deployment.pipe import connect, receive_frame, send_frame
from fedlens.errors import DeploymentError

_START_SECONDS = 60.0
"""How long a service may take to start, or to start again after it died."""


class Errand(threading.Thread):
    """One message on its way through the hospital's service.

    Args:
        service: The service's socket.
        name: Of the errand.
        header: For the service.
        blobs: The message.
    """

    def __init__(self, service: Path, name: str, header: dict[str, Any], *blobs: bytes | memoryview) -> None:
        super().__init__(name=f"errand {name}", daemon=True)
        self._service = service
        self._header = header
        self._blobs = blobs
        self._connection: socket.socket | None = None
        self._cancelled = threading.Event()
        self.errand = name
        self.finished = threading.Event()
        self.headers: dict[str, Any] = {STATE: WORKING, PERCENT: 0, STEP: ""}
        self.content = b""

    def cancel(self) -> None:
        """Hang up, which ends the service's work on it."""
        self._cancelled.set()
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        """Send, then take progress and the answer."""
        try:
            with self._connected() as connection:
                self._connection = connection
                if self._cancelled.is_set():
                    raise ConnectionAbortedError
                send_frame(connection, self._header, *self._blobs)
                self._blobs = ()
                while not self.finished.is_set():
                    self._take(*receive_frame(connection))
        except (OSError, EOFError, DeploymentError) as error:
            self.headers = {STATE: FAILED, ERROR: self._trouble(error)}
        finally:
            self.finished.set()

    def _take(self, header: dict[str, Any], blobs: list[bytes]) -> None:
        state = header.get(STATE)
        if state not in (WORKING, DONE, FAILED):
            raise DeploymentError(f"it said {str(state)[:40]!r}")
        if state == WORKING:
            self.headers = header
            return
        self.content = blobs[0] if blobs else b""
        self.headers = header
        self.finished.set()

    def _connected(self) -> socket.socket:
        """A service that is starting, or starting again, is waited for."""
        until = time.monotonic() + _START_SECONDS
        while True:
            try:
                return connect(self._service)
            except OSError:
                if time.monotonic() > until or self._cancelled.is_set():
                    raise
                time.sleep(0.2)

    def _trouble(self, error: Exception) -> str:
        if self._cancelled.is_set():
            return "The coordinator no longer waits for it."
        if isinstance(error, EOFError | ConnectionError):
            return "The hospital's service ended in the middle of its work."
        return f"The hospital's service cannot be reached: {error}."


class Relay(FLComponent):  # type: ignore[misc]
    """Registers with FLARE's client at its start and answers the coordinator, one errand at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._errand: Errand | None = None
        self._service = Path()

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """FLARE tells that the client has started or lost its way."""
        if event_type == EventType.SYSTEM_BOOTSTRAP:
            # Before it registers, and so before the coordinator can send it anything.
            guard_hospital(fl_ctx.get_engine().get_cell())
        elif event_type == EventType.SYSTEM_START:
            kit = read_kit(Path(str(fl_ctx.get_prop(FLContextKey.WORKSPACE_ROOT))).resolve().parent)
            self._service = kit.socket
            cell = fl_ctx.get_engine().get_cell()
            cell.register_request_cb(channel=CHANNEL, topic="*", cb=self.receive)
            tell(kit.folder, f"connected to the coordinator at {kit.host}:{kit.port}")

    def receive(self, message: Message) -> Message:
        """Answer one message of the coordinator; of anybody else, none."""
        if message.get_header(MessageHeaderKey.ORIGIN) != FQCN.ROOT_SERVER:
            return _reply({STATE: FAILED, ERROR: "Only the coordinator is answered."})
        topic = message.get_header(MessageHeaderKey.TOPIC)
        if topic == "ping":
            return _reply({STATE: HERE})
        name = str(message.get_header(ERRAND))
        errand = self._started(name, message) if topic == "ask" else self._errand
        if errand is None or errand.errand != name:
            return _reply({STATE: UNKNOWN})
        if topic == "cancel":
            errand.cancel()
        errand.finished.wait(float(message.get_header(WAIT, 0.0)))
        headers = errand.headers
        return _reply(headers, errand.content if headers[STATE] == DONE else b"")

    def _started(self, name: str, message: Message) -> Errand:
        """The errand of that name; a new one takes the place of the last, which is given up."""
        with self._lock:
            if self._errand is not None and self._errand.errand == name:
                return self._errand
            if self._errand is not None:
                self._errand.cancel()
            content = memoryview(message.payload or b"")
            cut = len(content) - int(message.get_header(OWN, 0))
            header = {ERRAND: name, **{key: str(message.get_header(key)) for key in (STUDY, SIGNATURE)}}
            self._errand = Errand(self._service, name, header, content[:cut], content[cut:])
            self._errand.start()
            return self._errand


def _reply(headers: dict[str, Any], content: bytes = b"") -> Message:
    return Message({MessageHeaderKey.RETURN_CODE: ReturnCode.OK, **headers}, content)
