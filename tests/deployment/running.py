"""A federation of real processes on loopback: coordinator, hospitals, and the lead's session."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from fedlens.arm_path import FEDERATED, arm_path
from fedlens.arms import train_arm
from fedlens.coordinator.checkpoints import read_checkpoint
from fedlens.coordinator.history import Event, read_history
from fedlens.deployment.kit import Kit, open_kit, read_kit
from fedlens.deployment.session import ENDED, Session
from fedlens.preparation import prepare
from fedlens.protocol.messages import Parameters
from fedlens.study import Study

FEDLENS = [sys.executable, "-m", "fedlens"]
CLASSES = ("NORMAL", "PNEUMONIA", "mel", "notumor", "nv", "tumor")
_TRAINS_SECONDS = 0.15
"""Processor time after which a hospital is certainly training: to take in the request takes a fifth of it."""
_WITH_PORT = ("kit.json", "flare/startup/fed_*.json")


class RunningFederation:
    """Processes of one federation folder made by ``rehearse``; ``close`` leaves none of them behind.

    Args:
        folder: The federation's.
        data: Holds a folder of images for each hospital.
    """

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder = folder
        self.data = data
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._held: list[psutil.Process] = []

    @property
    def coordinator(self) -> Path:
        """The coordinator's kit."""
        return self.folder / "coordinator"

    @property
    def names(self) -> tuple[str, ...]:
        """All hospitals, in roster order."""
        return open_kit(self.coordinator, "coordinator").members().hospitals

    def hospital(self, name: str) -> Path:
        """A hospital's kit."""
        return self.folder / "hospitals" / name

    def start(self, names: Sequence[str] = ()) -> None:
        """Start the coordinator and these hospitals, or all, and wait until they are connected."""
        chosen = names or self.names
        self.start_coordinator(wait=False)
        for name in chosen:
            self.start_hospital(name, wait=False)
        self.wait_for_coordinator()
        for name in chosen:
            self.wait_for_hospital(name)

    def start_coordinator(self, *, wait: bool = True) -> None:
        """Start the coordinator."""
        self._forget_notices(self.coordinator)
        self._start("coordinator", [*FEDLENS, "coordinator", "start", "--kit", str(self.coordinator)])
        if wait:
            self.wait_for_coordinator()

    def start_hospital(self, name: str, *, wait: bool = True) -> None:
        """Start one hospital."""
        kit = self.hospital(name)
        self._forget_notices(kit)
        self._start(name, [*FEDLENS, "hospital", "start", "--kit", str(kit), "--data", str(self.data / name)])
        if wait:
            self.wait_for_hospital(name)

    def start_process(self, name: str, command: Sequence[str]) -> None:
        """Start some other process that belongs to the federation, under a name that is not taken."""
        self._start(name, command)

    def wait_for_coordinator(self) -> None:
        """Wait until it can be connected to."""
        self.wait_for_notice(self.coordinator, "is ready on port")

    def wait_for_hospital(self, name: str) -> None:
        """Wait until both halves of it are there."""
        self.wait_for_notice(self.hospital(name), "connected to the coordinator")
        self.wait_for_notice(self.hospital(name), f"service of {name} is ready")

    def wait_for_notice(self, kit: Path, text: str, seconds: float = 90, count: int = 1) -> None:
        """Wait until a kit's processes have said something so many times since their start."""
        wait_until(lambda: self.notices(kit).count(text) >= count, seconds, f"{text!r} in notices of {kit}")

    def notices(self, kit: Path) -> str:
        """What a kit's processes have said since their start."""
        path = kit / "run" / "notices"
        return path.read_text() if path.exists() else ""

    def _forget_notices(self, kit: Path) -> None:
        # The supervisor does it too, but only once it runs: what is waited for must not be an old one.
        (kit / "run" / "notices").unlink(missing_ok=True)

    def _start(self, name: str, command: Sequence[str]) -> None:
        assert name not in self.processes, name
        with (self.folder / f"{name}.out").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )

    def members(self, name: str) -> list[psutil.Process]:
        """All processes of one member, its supervisor first."""
        parent = psutil.Process(self.processes[name].pid)
        return [parent, *parent.children(recursive=True)]

    def child(self, name: str, text: str) -> psutil.Process:
        """The member's process with ``text`` in its command line: ``deployment.service``, ``nvflare``."""

        def find() -> psutil.Process | None:
            for process in self.members(name)[1:]:
                with contextlib.suppress(psutil.Error):
                    if text in " ".join(process.cmdline()):
                        return process
            return None

        found: psutil.Process = wait_until(find, 60, f"a process {text} of {name}")
        return found

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Stop a hospital's service where it stands, so that the step it is at cannot end meanwhile."""
        process = self.child(name, "deployment.service")
        process.suspend()
        self._held.append(process)
        try:
            yield
        finally:
            self._held.remove(process)
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def kill(self, name: str) -> None:
        """kill -9 of every process of a member at once, as when its machine loses power."""
        for process in self.members(name):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.processes.pop(name).wait()

    def stop(self, name: str, number: int = signal.SIGTERM) -> int:
        """End a member in good order, by a signal to its supervisor; returns the exit code."""
        process = self.processes.pop(name)
        process.send_signal(number)
        return process.wait(30)

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """The lead's session with the coordinator."""
        with Session(self.kit()) as session:
            yield session

    def kit(self) -> Kit:
        """The lead's."""
        return open_kit(self.folder / "lead", "lead")

    def submit(self, study: Study) -> None:
        """Hand a study in, in the lead's name."""
        with self.session() as session:
            session.submit(study)

    def status(self, study: Study) -> dict[str, Any]:
        """Where it stands."""
        with self.session() as session:
            return session.ask("status", name=study.name)

    def wait_for_status(self, study: Study, state: str, seconds: float = 60) -> dict[str, Any]:
        """Wait until a study is in a state; returns its status then."""
        with self.session() as session:

            def reached() -> dict[str, Any] | None:
                status = session.ask("status", name=study.name)
                return status if status["state"] == state else None

            found: dict[str, Any] = wait_until(reached, seconds, f"study {study.name} is {state}")
            return found

    def follow(self, study: Study, seconds: float = 120) -> dict[str, Any]:
        """Wait until a study ends; returns its last status."""
        with self.session() as session:

            def ended() -> dict[str, Any] | None:
                status = session.ask("status", name=study.name, since=0)
                return status if status["state"] in ENDED else None

            found: dict[str, Any] = wait_until(ended, seconds, f"an end of study {study.name}")
            return found

    def wait_for_step(self, study: Study, number: int, step: str, seconds: float = 90) -> None:
        """Wait until all hospitals of a round were asked for a step: ``training``, ``evaluation``."""
        with self.session() as session:

            def at() -> bool:
                status = session.ask("status", name=study.name)
                done = [event["round"] for event in status["events"] if event["event"] == "round"]
                assert status["state"] not in ENDED and number not in done, status
                return status["step"] == step and number - 1 in (0, *done)

            wait_until(at, seconds, f"round {number} of {study.name} is at {step}")

    @contextlib.contextmanager
    def held_in_training(self, study: Study, number: int, name: str) -> Iterator[None]:
        """Hold a hospital in the middle of the training of a round, the second or a later one."""
        service = self.child(name, "deployment.service")
        with self.session() as session:
            self.wait_for_round(study, number - 1)
            begun = service.cpu_times().user + _TRAINS_SECONDS
            wait_until(lambda: service.cpu_times().user > begun, 60, f"{name} works", pause=0.01)
            with self.held(name):

                def training() -> bool:
                    said = session.ask("status", name=study.name)["hospitals"].get(name, "")
                    assert number not in self.rounds(study), f"{name} was too quick to be held"
                    return str(said).startswith("training ")

                wait_until(training, 30, f"{name} says that it trains")
                yield

    def arm(self, study: Study) -> Path:
        """Where the coordinator keeps history and checkpoints of a study."""
        return arm_path(self.coordinator / "studies" / study.name, study)

    def history(self, study: Study) -> list[Event]:
        """All events so far."""
        return read_history(self.arm(study)) if self.arm(study).exists() else []

    def rounds(self, study: Study) -> dict[int, Event]:
        """Finished rounds by number."""
        return {event["round"]: event for event in self.history(study) if event["event"] == "round"}

    def failures(self, study: Study) -> list[Event]:
        """Rounds that came to nothing, in order."""
        return [event for event in self.history(study) if event["event"] == "failed"]

    def wait_for_round(self, study: Study, number: int, seconds: float = 90) -> Event:
        """Wait until a round is finished; returns its event."""
        wait_until(lambda: number in self.rounds(study), seconds, f"round {number} of {study.name}")
        return self.rounds(study)[number]

    def weights(self, study: Study, number: int) -> Parameters:
        """The global model after a round."""
        return read_checkpoint(self.arm(study) / "rounds" / f"round-{number:04d}.safetensors").parameters

    def left(self, folder: Path | None = None) -> list[psutil.Process]:
        """Every living process that has this federation's folder, or another, in its command line."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                command = " ".join(process.cmdline())
                if str(folder or self.folder) in command and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def close(self) -> None:
        """End everything; fails where a process is left, or a file that is not whole."""
        for process in self._held:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
        running = list(self.processes)
        for name in running:
            self.processes[name].send_signal(signal.SIGTERM)
        for name in running:
            self.processes.pop(name).wait(30)
        left = self.left()
        for process in left:
            process.kill()
        assert not left, f"left behind: {left}"
        check_whole(self.folder)


def check_whole(folder: Path) -> None:
    """Every checkpoint and history below a folder can be read to its end, and no part of a file is left."""
    assert not list(folder.rglob("*.part")), list(folder.rglob("*.part"))
    for path in folder.glob("coordinator/studies/*/*/*/rounds/*"):
        read_checkpoint(path)
    for path in folder.glob("coordinator/studies/*/*/*/history.jsonl"):
        assert path.read_bytes().endswith(b"\n"), path
        read_history(path.parent)
    for path in folder.glob("hospitals/*/studies/*/state-*.safetensors"):
        # The first eight bytes say how long the table is that says how long the file is.
        size = int.from_bytes(path.read_bytes()[:8], "little")
        table = json.loads(path.read_bytes()[8 : 8 + size])
        ends = [entry["data_offsets"][1] for name, entry in table.items() if name != "__metadata__"]
        assert path.stat().st_size == 8 + size + max(ends, default=0), path


def tiny_study(images: Path, name: str, **tables: dict[str, Any]) -> Study:
    """A study of three rounds over small phantoms, in the clear; ``tables`` are added to the study file's.

    Args:
        images: Pooled images; what a hospital trains on was dealt from them.
        name: Of the study.
        tables: Settings by table, e.g. ``network={"grace": 5}``.
    """
    content: dict[str, dict[str, Any]] = {
        "data": {"folder": str(images), "classes": CLASSES},
        "hospitals": {"by": "equal", "names": ("north", "south", "east", "west")},
        "preprocess": {"size": 32},
        "training": {"passes": 45, "batch_size": 8, "device": "cpu"},
        "federation": {"rounds": 3, "minimum_hospitals": 2},
        "sealing": {"mode": "off"},
        "explanation": {"measures": "none"},
        "decision": {"federated": False},
        "network": {"grace": 20, "wait": 90, "deadline": 120},
    }
    merged = {key: {**content.get(key, {}), **tables.get(key, {})} for key in content | tables}
    output = images.parent / "runs" / name
    return Study.model_validate({"name": name, "output": output, **merged})


def run_tiny(images: Path, folder: Path, **tables: dict[str, Any]) -> Parameters:
    """Train the tiny study by the local engine, hospitals in one process; returns the final weights."""
    study = tiny_study(images, "undisturbed", **tables).model_copy(update={"output": folder})
    return train_arm(prepare(study), FEDERATED).rounds.parameters


def same(left: Parameters, right: Parameters) -> bool:
    """Whether two networks are equal to the bit."""
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and left[name].tobytes() == right[name].tobytes()
        for name in left
    )


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def move_to_port(kit: Path, port: int) -> None:
    """Have a kit use another port than the one it was made for; its certificates do not name one."""
    old = read_kit(kit).port
    for pattern in _WITH_PORT:
        for path in kit.glob(pattern):
            path.write_text(re.sub(rf"\b{old}\b", str(port), path.read_text()))


def study_file(path: Path, study: Study) -> Path:
    """Write a study as the file that it could have come from."""
    lines, tables = [], []
    for key, value in study.model_dump(mode="json", exclude_none=True).items():
        if isinstance(value, dict):
            tables.append(f"[{key}]")
            tables += [f"{name} = {json.dumps(entry)}" for name, entry in value.items()]
        else:
            lines.append(f"{key} = {json.dumps(value)}")
    path.write_text("\n".join([*lines, *tables]) + "\n")
    return path


def wait_until(holds: Callable[[], Any], seconds: float, what: str, *, pause: float = 0.05) -> Any:
    """Poll until ``holds()`` is true; returns what it returned."""
    until = time.monotonic() + seconds
    while not (found := holds()):
        if time.monotonic() > until:
            raise AssertionError(f"After {seconds} s not: {what}")
        time.sleep(pause)
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
