"""What a round between machines costs outside training: coordinator and four hospitals over mutual TLS.

Everything is real but training, which takes no time: processes, FLARE's connections on loopback, relays,
services, signatures, sealing, checkpoints. The time of a round is from one request to train to the
next at the same hospital, median over rounds and hospitals; ours includes an evaluation in every round. The
same for FLARE's stock FedAvg recipe on the same number of float32 weights, in the same run.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from _figures import write_figures
from _instant_service import start_parameters

from fedlens.deployment.federation import Federation
from fedlens.deployment.kit import Kit, open_kit
from fedlens.deployment.rehearsal import rehearse
from fedlens.deployment.session import ENDED, Session
from fedlens.deployment.submission import Submission, portable_settings
from fedlens.deployment.supervisor import client_command, coordinator_command
from fedlens.imaging.importer import import_images
from fedlens.imaging.manifest import load_manifest
from fedlens.imaging.phantoms import draw_phantoms
from fedlens.sharing import share_images
from fedlens.study import (
    DataSettings,
    ExplanationSettings,
    FederationSettings,
    HospitalSettings,
    PreprocessSettings,
    SealingSettings,
    Study,
    TrainingSettings,
)

NAMES = ("north", "south", "east", "west")
HERE = Path(__file__).parent
POLICY = 'sealing = "optional"\nminimum_hospitals = 2\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--millions", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--port", type=int, default=18602)
    parser.add_argument("--no-stock", action="store_true", help="leave FLARE's own recipe out")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        figures["start_to_training_seconds"] = start_up(Path(scratch), options.port)
        for millions in options.millions:
            for mode in ("sealed", "plain"):
                seconds = ours(Path(scratch), options.port, millions * 10**6, mode, options.rounds)
                figures[f"{millions}m_{mode}_round_seconds"] = seconds
            sealed, plain = (figures[f"{millions}m_{mode}_round_seconds"] for mode in ("sealed", "plain"))
            figures[f"{millions}m_sealed_over_plain"] = sealed / plain
            if not options.no_stock:
                stock = flare_stock(Path(scratch), options.port, millions * 10**6, options.rounds)
                figures[f"{millions}m_flare_fedavg_round_seconds"] = stock
                figures[f"{millions}m_sealed_over_flare_fedavg"] = sealed / stock
    write_figures(options.json, figures)


def federation(folder: Path, port: int) -> Path:
    """A fresh federation of four hospitals with all kits on this machine."""
    shutil.rmtree(folder, ignore_errors=True)
    settings = Federation(
        name="bench", coordinator="localhost", port=port, lead="lead@example.org", hospitals=NAMES
    )
    rehearse(settings, folder)
    return folder


def ours(scratch: Path, port: int, count: int, mode: str, rounds: int) -> float:
    """Median seconds of a round of FedLens."""
    folder = federation(scratch / "ours", port)
    study = Study(
        name="bench",
        data=DataSettings(folder=Path(), classes=("a", "b")),
        hospitals=HospitalSettings(names=NAMES),
        federation=FederationSettings(rounds=rounds),
        sealing=SealingSettings(mode="on" if mode == "sealed" else "off"),
        explanation=ExplanationSettings(measures="none"),
    )
    commands = [["coordinator", *fedlens("coordinator", "start", "--kit", str(folder / "coordinator"))]]
    times = scratch / "times"
    shutil.rmtree(times, ignore_errors=True)
    times.mkdir()
    for name in NAMES:
        kit = folder / "hospitals" / name
        (kit / "policy.toml").write_text(POLICY)
        service = [str(HERE / "_instant_service.py"), str(kit), str(times / name), str(count)]
        commands.append([name, sys.executable, *service])
        commands.append([name, *client_command(open_kit(kit, "hospital"))])
    with running(commands), Session(lead_when_ready(folder)) as session:
        submission = Submission(
            settings=portable_settings(study),
            fingerprint="0" * 64,
            norm_names=(),
            buffer_names=(),
            parameters=start_parameters(count),
        )
        session.hand_over(submission)
        ended = session.follow("bench", lambda event: None, lambda status: None)
        if ended["state"] != "finished":
            raise RuntimeError(ended["reason"])
    return between(times)


def start_up(scratch: Path, port: int) -> float:
    """Seconds from starting coordinator and four real hospitals at once to the first training step.

    The study is handed over as soon as all are connected, as a script would.
    """
    folder = federation(scratch / "start", port)
    images = scratch / "images"
    import_images([draw_phantoms(scratch / "phantoms", images=240)], images)
    classes = load_manifest(images).labels()
    study = Study(
        name="start",
        data=DataSettings(folder=images, classes=classes),
        hospitals=HospitalSettings(by="equal", names=NAMES),
        preprocess=PreprocessSettings(size=64),
        training=TrainingSettings(passes=20),
        federation=FederationSettings(rounds=1),
    )
    share_images(study, scratch / "dealt")
    commands = [["coordinator", *fedlens("coordinator", "start", "--kit", str(folder / "coordinator"))]]
    for name in NAMES:
        kit, data = str(folder / "hospitals" / name), str(scratch / "dealt" / name)
        commands.append([name, *fedlens("hospital", "start", "--kit", kit, "--data", data)])
    began = time.monotonic()
    with running(commands), Session(lead_when_ready(folder)) as session:
        session.submit(study)
        while True:
            status = session.ask("status", name="start")
            if any(step.startswith("training") for step in status["hospitals"].values()):
                return time.monotonic() - began
            if status["state"] in ENDED:
                raise RuntimeError(status["reason"])
            time.sleep(0.1)


def flare_stock(scratch: Path, port: int, count: int, rounds: int) -> float:
    """Median seconds of a round of FLARE's stock FedAvg recipe, with its own default settings."""
    from nvflare.app_common.np.recipes.fedavg import NumpyFedAvgRecipe
    from nvflare.fuel.flare_api.flare_api import new_secure_session

    folder = federation(scratch / "stock", port)
    times = scratch / "stock-times"
    shutil.rmtree(times, ignore_errors=True)
    times.mkdir()
    start = scratch / "start.npy"
    np.save(start, np.zeros(count, np.float32))
    recipe = NumpyFedAvgRecipe(
        name="stock",
        initial_ckpt=str(start),
        min_clients=len(NAMES),
        num_rounds=rounds,
        train_script=str(HERE / "_stock_client.py"),
        train_args=str(times),
    )
    recipe.export(str(scratch / "jobs"))
    kits = [folder / "coordinator", *(folder / "hospitals" / name for name in NAMES)]
    for kit in kits:
        stock_settings(kit / "flare" / "local", scratch / "flare-store")
    commands = [["coordinator", *coordinator_command(open_kit(folder / "coordinator", "coordinator"))]]
    commands += [[name, *client_command(open_kit(folder / "hospitals" / name, "hospital"))] for name in NAMES]
    lead = open_kit(folder / "lead", "lead")
    with running(commands):
        time.sleep(8)
        session = new_secure_session(lead.name, str(lead.flare))
        try:
            job = session.submit_job(str(scratch / "jobs" / "stock"))
            session.wait_for_job(job, timeout=600)
        finally:
            session.close()
    return between(times)


def stock_settings(local: Path, store: Path) -> None:
    """FLARE's own defaults in place of ours; jobs go to a folder of this run."""
    for name in ("resources.json", "authorization.json"):
        default = local / f"{name}.default"
        text = default.read_text().replace("/tmp/nvflare", str(store))
        (local / name).write_text(text)


def fedlens(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "fedlens", *arguments]


def lead_when_ready(folder: Path) -> Kit:
    """The lead's kit, once the coordinator and all hospitals are up."""
    places = [folder / "coordinator", *(folder / "hospitals" / name for name in NAMES)]
    words = ["is ready on port", *["connected to the coordinator"] * len(NAMES)]
    until = time.monotonic() + 120
    for place, word in zip(places, words, strict=True):
        notices = place / "run" / "notices"
        while not (notices.exists() and word in notices.read_text()):
            if time.monotonic() > until:
                raise RuntimeError(f"{place} did not start")
            time.sleep(0.2)
    return open_kit(folder / "lead", "lead")


@contextlib.contextmanager
def running(commands: list[list[str]]) -> Iterator[None]:
    """These processes, each in a group of its own, until the block ends."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}
    processes = [
        subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        for _, *command in commands
    ]
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        time.sleep(2)
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def between(times: Path) -> float:
    """Median seconds from one request to the next, over all hospitals; the first round is left out."""
    gaps = []
    for path in times.iterdir():
        stamps = [float(line) for line in path.read_text().split()]
        gaps += [later - earlier for earlier, later in itertools.pairwise(stamps[1:])]
    return statistics.median(gaps)


if __name__ == "__main__":
    main()
