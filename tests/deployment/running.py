"""A federation of real processes on loopback: coordinator, hospitals, and the lead's session."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from fedlens.deployment.kit import Kit, open_kit
from fedlens.deployment.session import Session

FEDLENS = [sys.executable, "-m", "fedlens"]


class RunningFederation:
    """Processes of one federation folder made by ``rehearse``; ``close`` leaves none of them behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._seen: dict[int, psutil.Process] = {}

    @property
    def coordinator(self) -> Path:
        return self.folder / "coordinator"

    def hospital(self, name: str) -> Path:
        return self.folder / "hospitals" / name

    def start_coordinator(self, **environment: str) -> None:
        self._start("coordinator", ["coordinator", "start", "--kit", str(self.coordinator)], environment)
        self.wait_for_notice(self.coordinator, "is ready on port")

    def start_hospital(self, name: str, data: Path, *, wait: bool = True, **environment: str) -> None:
        command = ["hospital", "start", "--kit", str(self.hospital(name)), "--data", str(data)]
        self._start(name, command, environment)
        if wait:
            self.wait_for_notice(self.hospital(name), "connected to the coordinator")
            self.wait_for_notice(self.hospital(name), f"service of {name} is ready")

    def _start(self, name: str, arguments: list[str], environment: dict[str, str]) -> None:
        assert name not in self.processes, name
        log = (self.folder / f"{name}.out").open("ab")
        self.processes[name] = subprocess.Popen(
            [*FEDLENS, *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            start_new_session=True,
        )
        log.close()

    def wait_for_notice(self, kit: Path, text: str, seconds: float = 60) -> None:
        path = kit / "run" / "notices"
        wait_until(lambda: path.exists() and text in path.read_text(), seconds, f"{text!r} in {path}")

    def children(self, name: str) -> list[psutil.Process]:
        """All processes of one member, its supervisor first."""
        parent = psutil.Process(self.processes[name].pid)
        found = [parent, *parent.children(recursive=True)]
        self._seen |= {process.pid: process for process in found}
        return found

    def child(self, name: str, text: str) -> psutil.Process:
        """The member's process with ``text`` in its command line: ``deployment.service``, ``nvflare``."""
        return next(process for process in self.children(name)[1:] if text in " ".join(process.cmdline()))

    def kill(self, name: str) -> None:
        """kill -9 of every process of a member at once, as when its machine loses power."""
        for process in self.children(name):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.processes.pop(name).wait()

    def stop(self, name: str) -> None:
        """End a member in good order (SIGTERM to its supervisor)."""
        self.children(name)
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        process.wait(30)

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        with Session(self.kit()) as session:
            yield session

    def kit(self) -> Kit:
        return open_kit(self.folder / "lead", "lead")

    def close(self) -> None:
        """End everything; fails if a process outlives its supervisor."""
        for name in list(self.processes):
            self.stop(name)
        left = [process for process in self._seen.values() if _alive(process)]
        for process in left:
            process.kill()
        assert not left, f"left behind: {left}"


def _alive(process: psutil.Process) -> bool:
    try:
        process.wait(5)
    except psutil.TimeoutExpired:
        return True
    return False


def wait_until(holds: Callable[[], Any], seconds: float, what: str) -> Any:
    """Poll until ``holds()`` is true; returns what it returned."""
    until = time.monotonic() + seconds
    while not (found := holds()):
        if time.monotonic() > until:
            raise AssertionError(f"After {seconds} s not: {what}")
        time.sleep(0.1)
    return found


def run_fedlens(*arguments: str, seconds: float = 300) -> subprocess.CompletedProcess[str]:
    """One command of the real program."""
    return subprocess.run(
        [*FEDLENS, *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
