"""Keeps a kit's processes running: starts them, starts them again when they die, and leaves none behind.

The supervisor itself does nothing else, so it has little to die of. If it is killed all the same, the
system kills its children (Linux: PR_SET_PDEATHSIG), and theirs end as their parents are gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from fedlens.deployment.flare_config import write_coordinator_config, write_hospital_config
from fedlens.deployment.kit import Kit
from fedlens.deployment.notices import notices_path, tell
from fedlens.errors import DeploymentError

_POLL_SECONDS = 0.2
_GRACE_SECONDS = 8.0
_STEADY_SECONDS = 60.0
_MOST_PAUSE = 30.0
_PR_SET_PDEATHSIG = 1
_ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    # gRPC has no switch for the least version of TLS. This suite of TLS 1.2 needs a shared secret that nobody
    # has set up, so no handshake of TLS 1.2 succeeds; the suites of TLS 1.3 are not chosen here and stay.
    "GRPC_SSL_CIPHER_SUITES": "ECDHE-PSK-CHACHA20-POLY1305",
}

Say = Callable[[str], None]


@dataclass
class _Child:
    """One process that is to run for as long as the supervisor does."""

    name: str
    command: Sequence[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    due: float = 0.0

    def start(self) -> None:
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **_ENVIRONMENT},
                preexec_fn=_be_a_child,  # noqa: PLW1509 (this process has one thread)
            )
        self.started = time.monotonic()


def run_hospital(kit: Kit, data: Path, say: Say) -> None:
    """Run a hospital's service and its FLARE client until interrupted.

    Args:
        kit: The hospital's.
        data: Study folder with its images.
        say: Takes a line for whoever runs it.

    Raises:
        DeploymentError: The kit is in use by another process.
    """
    write_hospital_config(kit.folder)
    service = [sys.executable, "-m", "fedlens.deployment.service", str(kit.folder), str(data)]
    _supervise(kit, {"service": service, "flare": client_command(kit)}, say)


def run_coordinator(kit: Kit, say: Say) -> None:
    """Run the coordinator's FLARE server, which runs its studies, until interrupted.

    Raises:
        DeploymentError: The kit or the port is in use by another process.
    """
    _refuse_taken_port(kit.port)
    write_coordinator_config(kit.folder)
    _supervise(kit, {"flare": coordinator_command(kit)}, say)


def coordinator_command(kit: Kit) -> list[str]:
    """The command that is FLARE's server, on the configuration that lies in the kit."""
    return _flare(kit, "server.server_train", "fed_server.json")


def client_command(kit: Kit) -> list[str]:
    """The command that is FLARE's client, on the configuration that lies in the kit."""
    return [*_flare(kit, "client.client_train", "fed_client.json"), f"uid={kit.name}"]


def _refuse_taken_port(port: int) -> None:
    """FLARE itself says nothing of it, and would be waited for in vain."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        raise DeploymentError(
            f"Port {port} of this machine is in use by another process.",
            fix="Stop that process, or make the federation with another port.",
        )


def _flare(kit: Kit, module: str, config: str) -> list[str]:
    workspace = str(kit.flare.absolute())
    return [
        sys.executable,
        "-u",
        "-m",
        f"nvflare.private.fed.app.{module}",
        "-m",
        workspace,
        "-s",
        config,
        "--set",
        "secure_train=true",
        f"org={kit.organisation}",
        "config_folder=",
    ]


def _supervise(kit: Kit, commands: Mapping[str, Sequence[str]], say: Say) -> None:
    logs = kit.folder / "logs"
    children = [_Child(name, command, logs / f"{name}.log") for name, command in commands.items()]
    with _alone(kit), _interruptible() as interrupted:
        notices_path(kit.folder).unlink(missing_ok=True)
        read = 0
        try:
            for child in children:
                child.start()
            while not interrupted():
                for child in children:
                    _keep(kit, child)
                read = _pass_on(kit, read, say)
                time.sleep(_POLL_SECONDS)
        finally:
            _end(children)
            _pass_on(kit, read, say)
            kit.socket.unlink(missing_ok=True)


def _keep(kit: Kit, child: _Child) -> None:
    """Start a dead child again, later each time that it does not last."""
    now = time.monotonic()
    if child.process is None:
        if now >= child.due:
            child.start()
        return
    code = child.process.poll()
    if code is None:
        return
    child.failures = 0 if now - child.started > _STEADY_SECONDS else child.failures + 1
    pause = min(_MOST_PAUSE, 0.5 * 2 ** max(0, child.failures - 1))
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    tell(kit.folder, f"{child.name} ended ({how}); starting it again in {pause:.1f} s, see {child.log}")
    child.process, child.due = None, now + pause


def _end(children: Sequence[_Child]) -> None:
    """Ask children to end, then make them."""
    running = [child.process for child in children if child.process is not None]
    for process in running:
        process.terminate()
    until = time.monotonic() + _GRACE_SECONDS
    for process in running:
        try:
            process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _pass_on(kit: Kit, read: int, say: Say) -> int:
    """Say what the processes had to tell since; returns how much was read."""
    try:
        with notices_path(kit.folder).open("rb") as stream:
            stream.seek(read)
            content = stream.read()
    except FileNotFoundError:
        return read
    whole = content[: content.rfind(b"\n") + 1]
    for line in whole.decode(errors="replace").splitlines():
        say(line)
    return read + len(whole)


@contextlib.contextmanager
def _alone(kit: Kit) -> Iterator[None]:
    """Hold the kit, so that a second supervisor of it is refused."""
    path = kit.folder / "run" / "lock"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DeploymentError(
                f"{kit.folder} is running already.", fix="Stop that process first, or use another kit."
            ) from error
        yield


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM came; the loop then ends in good order."""
    came = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _be_a_child() -> None:
    """Die with the parent; let nobody else read what is written."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Ctrl-C on the terminal is the supervisor's to handle, in order.
    os.setsid()
    os.umask(0o077)
