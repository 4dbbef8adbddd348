"""The half of a hospital that holds its images: a service that its relay alone can talk to.

It answers one message at a time. While it works it says how far it is; when nobody listens any more, it
stops. ``python -m fedlens.deployment.service KIT DATA`` runs it; ``fedlens hospital start`` keeps it running.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from fedlens.deployment.envelope import Ask, content_digest, sign_answer
from fedlens.deployment.headers import (
    DONE,
    ERRAND,
    ERROR,
    FAILED,
    PERCENT,
    SIGNATURE,
    STATE,
    STEP,
    STUDY,
    WORKING,
)
from fedlens.deployment.kit import Kit, open_kit
from fedlens.deployment.membership import Membership
from fedlens.deployment.notices import tell
from fedlens.deployment.pipe import listen, receive_frame, refuse_others, send_frame
from fedlens.errors import DeploymentError, FedLensError
from fedlens.progress import Progress

_FOLDERS = re.compile(r"""(?<![^\s'"(])/(?:[^\s/'"]+/)+""")
"""Where something lies on this machine, up to its own name."""
_SECONDS = 0.5
"""Shortest time between two reports of progress."""

Answer = Callable[[str, bytes, bytes, Progress], bytes]


def serve(kit: Kit, answer: Answer) -> None:
    """Answer the relay's messages until the process ends.

    Args:
        kit: The hospital's.
        answer: Takes the study's digest, the request, what is for this hospital only, and a callback
            for progress.
    """
    with listen(kit.socket) as server:
        tell(kit.folder, f"service of {kit.name} is ready")
        while True:
            connection, _ = server.accept()
            with connection:
                _attend(kit, answer, connection)


def _attend(kit: Kit, answer: Answer, connection: socket.socket) -> None:
    """One message, from its frame to its answer."""
    try:
        refuse_others(connection)
        header, blobs = receive_frame(connection)
        request, own = blobs
        errand, study = str(header[ERRAND]), str(header[STUDY])
        signature = bytes.fromhex(header[SIGNATURE])
        ask = Ask(errand, study, kit.name, content_digest(request), content_digest(own))
    except (OSError, EOFError, ValueError, KeyError, TypeError, DeploymentError) as error:
        tell(kit.folder, f"refused what came over the local socket: {error}")
        return
    try:
        ask.check(kit.members().roster([kit.name]), signature)
        content, failed = answer(study, request, own, _reporter(connection)), False
    except (BrokenPipeError, ConnectionError):
        tell(kit.folder, "stopped: the coordinator no longer waits for this answer")
        return
    except (FedLensError, OSError, MemoryError) as error:
        content, failed = _reason(error).encode(), True
        tell(kit.folder, f"refused or failed: {error}")
    signed = sign_answer(kit.identity(), errand, failed, content_digest(content)).hex()
    try:
        if failed:
            send_frame(connection, {STATE: FAILED, ERROR: content.decode(), SIGNATURE: signed})
        else:
            send_frame(connection, {STATE: DONE, SIGNATURE: signed}, content)
    except OSError:
        tell(kit.folder, "nobody waited for the answer")


def _reporter(connection: socket.socket) -> Progress:
    """Reports percent over the socket; raises BrokenPipeError once the relay has hung up."""
    reported = 0.0

    def report(step: str, done: int, total: int) -> None:
        nonlocal reported
        now = time.monotonic()
        if now - reported >= _SECONDS:
            reported = now
            # Percent, not counts: how many images are here is nobody else's business.
            percent = round(100 * done / total) if total else 0
            send_frame(connection, {STATE: WORKING, STEP: step, PERCENT: percent})

    return report


def _reason(error: Exception) -> str:
    """What the coordinator is told: our own errors less the folders, of the system's only their kind."""
    if isinstance(error, FedLensError):
        return _FOLDERS.sub("", str(error))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "The hospital's disk is full. Nothing was half-written. Make room there."
    return f"The hospital's machine failed: {type(error).__name__}. Its own log has the particulars."


def main(arguments: list[str]) -> None:
    """Run the service of a kit over a data folder."""
    folder, data = (Path(argument) for argument in arguments)
    os.umask(0o077)
    kit = open_kit(folder, "hospital")
    serve(kit, Membership(kit, data).answer)


if __name__ == "__main__":
    main(sys.argv[1:])
