"""The supervisor over small processes: it restarts them, passes on what they tell and leaves none behind."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fedlens.deployment import supervisor as supervisors
from fedlens.deployment.kit import Kit
from fedlens.deployment.notices import notices_path, tell
from fedlens.deployment.supervisor import run_coordinator, run_hospital
from fedlens.errors import DeploymentError

from .in_process import make_kits, wait_for

SUPERVISOR = """\
import json, sys
from pathlib import Path
from fedlens.deployment import supervisor
from fedlens.deployment.kit import read_kit
from fedlens.errors import FedLensError

supervisor._POLL_SECONDS = 0.02
supervisor._GRACE_SECONDS = 0.5
commands = {name: [sys.executable, "-S", "-c", code] for name, code in json.loads(sys.argv[2]).items()}
try:
    supervisor._supervise(read_kit(Path(sys.argv[1])), commands, lambda line: print(line, flush=True))
except FedLensError as error:
    sys.exit(f"{error.exit_code} {error}")
"""
SLEEP = "import time; print('begun', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"


class Supervisor:
    """A supervisor in a process of its own."""

    def __init__(self, kit: Kit, **children: str) -> None:
        self.kit = kit
        self.process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, str(kit.folder), json.dumps(children)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._seen: dict[int, psutil.Process] = {}

    def log(self, name: str) -> str:
        path = self.kit.folder / "logs" / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def children(self, count: int) -> list[psutil.Process]:
        """Its processes, once there are so many."""
        parent = psutil.Process(self.process.pid)
        found: list[psutil.Process] = wait_for(
            lambda: len(children := parent.children(recursive=True)) == count and children,
            f"{count} children",
        )
        self._seen |= {child.pid: child for child in found}
        return found

    def left(self) -> list[psutil.Process]:
        """Those of its processes that are still there after a moment."""
        alive: list[psutil.Process] = psutil.wait_procs(list(self._seen.values()), timeout=5)[1]
        return alive

    def end(self, number: int = signal.SIGTERM) -> tuple[int, list[str], str]:
        """Exit code, lines that it said, and its errors."""
        self.process.send_signal(number)
        said, errors = self.process.communicate(timeout=20)
        return self.process.returncode, said.splitlines(), errors

    def close(self) -> None:
        for process in [self.process, *self._seen.values()]:
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                process.kill()
        self.process.communicate()


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return make_kits(tmp_path, ["north"])["north"]


@pytest.fixture
def started() -> Iterator[list[Supervisor]]:
    """Supervisors to be killed at the end, whatever becomes of the test."""
    made: list[Supervisor] = []
    yield made
    for supervisor in made:
        supervisor.close()


def start(started: list[Supervisor], kit: Kit, **children: str) -> Supervisor:
    started.append(Supervisor(kit, **children))
    return started[-1]


def test_children_run_apart_from_the_terminal_and_write_logs_of_their_own(
    kit: Kit, started: list[Supervisor]
) -> None:
    supervisor = start(started, kit, service=SLEEP, flare=SLEEP)
    one, other = supervisor.children(2)
    wait_for(lambda: supervisor.log("service") == supervisor.log("flare") == "begun\n", "both have begun")
    sessions = {os.getsid(pid) for pid in (supervisor.process.pid, one.pid, other.pid)}
    assert len(sessions) == 3
    assert supervisor.end()[0] == 0 and not supervisor.left()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ended_in_good_order_it_leaves_none_behind(
    kit: Kit, started: list[Supervisor], number: signal.Signals
) -> None:
    ends = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (print('ends'), sys.exit()))"
    supervisor = start(
        started, kit, service=f"{ends}; print('begun', flush=True); time.sleep(600)", flare=SLEEP
    )
    supervisor.children(2)
    wait_for(lambda: supervisor.log("service"), "it has begun")
    kit.socket.touch()

    code, _, errors = supervisor.end(number)

    assert (code, errors) == (0, "")
    assert not supervisor.left()
    assert supervisor.log("service") == "begun\nends\n"
    assert not kit.socket.exists()


def test_a_child_that_does_not_end_when_asked_is_made_to(kit: Kit, started: list[Supervisor]) -> None:
    supervisor = start(started, kit, service=STUBBORN, flare=SLEEP)
    supervisor.children(2)
    wait_for(lambda: supervisor.log("service"), "it ignores SIGTERM")
    began = time.monotonic()
    assert supervisor.end()[0] == 0
    assert 0.4 < time.monotonic() - began < 10
    assert not supervisor.left()


def test_killed_at_once_it_leaves_none_behind(kit: Kit, started: list[Supervisor]) -> None:
    supervisor = start(started, kit, service=STUBBORN, flare=SLEEP)
    supervisor.children(2)
    wait_for(lambda: supervisor.log("service"), "it ignores SIGTERM")
    assert supervisor.end(signal.SIGKILL)[0] == -signal.SIGKILL
    assert not supervisor.left()
    # The lock went with it.
    again = start(started, kit, service=SLEEP)
    again.children(1)
    assert again.end()[0] == 0


def test_a_child_that_dies_is_started_again_later_each_time(kit: Kit, started: list[Supervisor]) -> None:
    dies = "import sys, time; print(time.monotonic(), flush=True); sys.exit(3)"
    supervisor = start(started, kit, service=dies, flare=SLEEP)
    wait_for(lambda: supervisor.log("service").count("\n") == 3, "started for the third time")
    (flare,) = supervisor.children(1)
    _, said, _ = supervisor.end()

    times = [float(line) for line in supervisor.log("service").split()]
    first, second = (later - earlier for earlier, later in itertools.pairwise(times))
    assert first >= 0.5 and second >= 1.0
    told = [re.sub(r"^[\d:]{8} ", "", line) for line in said]
    log = kit.folder / "logs" / "service.log"
    assert told[:2] == [
        f"service ended (exit code 3); starting it again in {pause} s, see {log}" for pause in ("0.5", "1.0")
    ]
    assert not any("flare ended" in line for line in told), "the other one goes on undisturbed"
    assert not supervisor.left() and not flare.is_running()


def test_a_child_that_is_killed_is_said_to_have_been(kit: Kit, started: list[Supervisor]) -> None:
    supervisor = start(started, kit, service=SLEEP)
    (child,) = supervisor.children(1)
    wait_for(lambda: supervisor.log("service"), "it has begun")
    child.kill()
    wait_for(lambda: supervisor.log("service").count("begun") == 2, "started again")
    (second,) = supervisor.children(1)
    assert second.pid != child.pid
    _, said, _ = supervisor.end()
    assert "service ended (signal 9); starting it again in 0.5 s" in said[0]
    assert not supervisor.left()


def test_pauses_grow_to_a_bound_and_shrink_after_a_steady_run(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    child = supervisors._Child("service", [sys.executable, "-S", "-c", "0"], kit.folder / "log")
    pauses: list[float] = []

    def run(seconds: float) -> None:
        nonlocal now
        child.start()
        assert child.process is not None
        child.process.wait(10)
        now += seconds
        supervisors._keep(kit, child)
        assert child.process is None
        pauses.append(child.due - now)
        supervisors._keep(kit, child)
        assert child.process is None, "not before its pause is over"
        now = child.due

    for _ in range(9):
        run(1.0)
    run(61.0)
    run(1.0)
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 0.5, 0.5]


def test_a_second_start_of_a_kit_is_refused_and_disturbs_nothing(kit: Kit, started: list[Supervisor]) -> None:
    first = start(started, kit, service=SLEEP)
    first.children(1)
    wait_for(lambda: first.log("service"), "it has begun")
    tell(kit.folder, "still here")

    second = start(started, kit, service="raise AssertionError")
    said, errors = second.process.communicate(timeout=20)

    assert second.process.returncode != 0 and said == ""
    assert errors.startswith(f"8 {kit.folder} is running already. Stop that process first")
    assert first.log("service") == "begun\n"
    assert "still here" in notices_path(kit.folder).read_text()
    assert first.end()[0] == 0


def test_what_processes_tell_is_passed_on_line_by_line(kit: Kit, started: list[Supervisor]) -> None:
    tell(kit.folder, "from an earlier start")
    supervisor = start(started, kit, service=SLEEP)
    supervisor.children(1)
    wait_for(lambda: supervisor.log("service"), "it has begun")
    assert supervisor.process.stdout is not None

    tell(kit.folder, "one")
    assert supervisor.process.stdout.readline()[9:] == "one\n"
    with notices_path(kit.folder).open("a") as stream:
        stream.write("12:00:00 half a ")
        stream.flush()
        time.sleep(0.1)
        stream.write("line\n12:00:01 another\n")
    assert supervisor.process.stdout.readline() == "12:00:00 half a line\n"
    assert supervisor.process.stdout.readline() == "12:00:01 another\n"
    tell(kit.folder, "of\nseveral\nlines")
    assert supervisor.process.stdout.readline()[9:] == "of several lines\n"
    assert supervisor.end() == (0, [], "")


def test_what_was_told_at_the_very_end_is_passed_on_too(kit: Kit, started: list[Supervisor]) -> None:
    notices = str(notices_path(kit.folder))
    code = (
        "import signal, sys, time\n"
        "def end(*_):\n"
        f"    open({notices!r}, 'a').write('12:00:00 goodbye\\n')\n"
        "    sys.exit()\n"
        f"signal.signal(signal.SIGTERM, end)\n{SLEEP}"
    )
    supervisor = start(started, kit, service=code)
    supervisor.children(1)
    wait_for(lambda: supervisor.log("service"), "it has begun")
    assert supervisor.end() == (0, ["12:00:00 goodbye"], "")


def test_a_program_that_is_not_there_ends_the_supervisor_and_the_others(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = {"flare": [sys.executable, "-S", "-c", SLEEP], "service": ["/no/such/program"]}
    monkeypatch.setattr(supervisors, "_GRACE_SECONDS", 0.5)
    with pytest.raises(FileNotFoundError):
        supervisors._supervise(kit, commands, lambda line: None)
    assert not psutil.Process().children(recursive=True)
    with supervisors._alone(kit):
        pass
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_signals_are_the_callers_again_afterwards(kit: Kit) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with supervisors._interruptible() as interrupted:
        assert not interrupted()
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(interrupted, "the signal came")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_kit_that_is_held_is_refused_within_one_process_too(kit: Kit) -> None:
    with (
        supervisors._alone(kit),
        pytest.raises(DeploymentError, match="is running already"),
        supervisors._alone(kit),
    ):
        raise AssertionError


def test_hospital_and_coordinator_are_started_from_their_own_kits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kits = make_kits(tmp_path / "kits", ["north"])
    seen: list[tuple[Kit, dict[str, list[str]]]] = []
    monkeypatch.setattr(supervisors, "_supervise", lambda kit, commands, say: seen.append((kit, commands)))
    run_hospital(kits["north"], tmp_path / "images", print)
    run_coordinator(kits["coordinator"], print)

    (hospital, both), (coordinator, one) = seen
    assert (hospital, coordinator) == (kits["north"], kits["coordinator"])
    assert both["service"][1:] == [
        "-m",
        "fedlens.deployment.service",
        str(kits["north"].folder),
        str(tmp_path / "images"),
    ]
    assert (
        list(one) == ["flare"]
        and "secure_train=true" in one["flare"]
        and "secure_train=true" in both["flare"]
    )
    assert "uid=north" in both["flare"] and str(kits["north"].flare) in both["flare"]
    assert not any(str(tmp_path / "images") in part for part in both["flare"]), "FLARE sees no images"
    for kit in seen:
        assert (kit[0].flare / "local" / "authorization.json").exists()
