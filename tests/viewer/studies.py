"""Run folders for tests of the study's page: real histories of hospitals with numbers in place of images."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI
from tests.coordinator.fakes import (
    CLASSES,
    FailingHospital,
    FakeHospital,
    LyingHospital,
    initial_parameters,
    make_settings,
)
from tests.reports.conftest import fake_explanations, fake_predictions
from tests.test_sealing import make_study
from tests.viewer.guarded import make_app

from fedlens.coordinator.evaluation import figures
from fedlens.coordinator.history import HISTORY_NAME, Event
from fedlens.coordinator.rounds import run_rounds
from fedlens.engines.local import LocalEngine
from fedlens.errors import NotEnoughHospitalsError
from fedlens.run_folder import keep_study
from fedlens.study import Study
from fedlens.viewer.audit import AuditLog
from fedlens.viewer.study_files import StudyFiles
from fedlens.viewer.study_results import Results
from fedlens.viewer.study_routes import study_router
from fedlens.viewer.study_state import ArmState, standing
from fedlens.viewer.study_view import StudyView, study_view

EVIL = '"><script>alert(1)</script>{{ 7*7 }}'
ROUNDS = 5


class InterruptedRunError(Exception):
    """The process of a run was ended."""


def keep_settings(run: Path, **tables: dict[str, Any]) -> Study:
    """Settings of a study of five rounds, kept in its run folder; ``tables`` change some of them."""
    study = make_study(rounds=ROUNDS, sealing={"mode": "off"}).model_copy(update={"name": "chest"})
    for table, changes in tables.items():
        study = study.model_copy(update={table: getattr(study, table).model_copy(update=changes)})
    keep_study(study, run)
    return study


def begun_study(folder: Path) -> Path:
    """An unsealed study after two of five rounds; returns ``folder``."""
    keep_settings(folder, compare={"bootstrap": 100})
    make_arm(folder, until=2)
    return folder


def make_arm(run: Path, arm: str = "federated", *, until: int = ROUNDS, seed: int = 0) -> Path:
    """An arm of four hospitals, begun or gone on with until a round, or to its end; returns its folder."""
    folder = run / f"seed-{seed}" / arm
    settings = make_settings(rounds=ROUNDS, explanation={"measures": "quick", "every": 2})

    def watch(event: Event) -> None:
        if event["round"] == until < ROUNDS:
            raise InterruptedRunError

    engine = LocalEngine([FakeHospital(name, 30 + place) for place, name in enumerate("ABCD")])
    with contextlib.suppress(InterruptedRunError):
        run_rounds(settings, initial_parameters(), engine, folder, resume=True, watch=watch)
    return folder


def make_troubled_arm(run: Path) -> Path:
    """C is missing in round 2, D is refused from round 3 on, and round 4 comes to nothing once."""
    folder = run / "seed-0" / "federated"
    settings = make_settings(rounds=ROUNDS, minimum_hospitals=2)
    ill = FailingHospital(EVIL, 47, (4,))
    liar = LyingHospital("D", 81, lambda update: dataclasses.replace(update, images=0), since=3)
    engine = LocalEngine([FakeHospital("A", 30), ill, FailingHospital("C", 64, (2, 4)), liar])
    try:
        run_rounds(settings, initial_parameters(), engine, folder)
    except NotEnoughHospitalsError:
        ill._rounds = ()
    run_rounds(settings, initial_parameters(), engine, folder, resume=True)
    return folder


def make_sealed_arm(run: Path) -> Path:
    """Three sealed rounds: D is missing in the second, B falls silent when the third is unmasked."""
    folder = run / "seed-0" / "federated"
    dead = "The line is dead."
    start = {"event": "start", "strategy": "fedavg", "sealed": True, "rounds": 3}
    enrolled = _sum("ABCD") | {"event": "segment", "number": 1, "roster": "AB12", "threshold": 3}
    rounds = [
        _sum("ABCD"),
        _sum("ABC") | {"missing": {"D": f"At training: {dead}"}},
        _sum("ABCD") | {"missing": {"B": f"At unmasking: {dead}"}},
    ]
    events = [start | {"hospitals": list("ABCD"), "classes": list(CLASSES)}, enrolled]
    for number, event in enumerate(rounds, start=1):
        said = {"event": "round", "round": number, "participants": list("ABCD"), "best_round": number}
        evaluation = _sum("ABCD") | {"seconds": 0.1} | _figures()
        events.append(event | said | {"images": 120, "loss": 1 / number, "evaluation": evaluation})
    for event in events:
        append(folder, json.dumps(event) + "\n")
    return folder


def _sum(names: str) -> Event:
    """What a history says of one opened sum."""
    return {
        "hospitals": {
            name: {"bytes_up": 3_000_000, "bytes_down": 5_000_000, "seconds": 0.1} for name in names
        },
        "missing": {},
        "refused": {},
        "seconds": {"training": 1.0, "aggregation": 0.1},
        "sealing": {
            "participants": 4,
            "survivors": len(names),
            "dropped": [],
            "threshold": 3,
            "seconds": {"sealing": 0.2, "opening": 0.1, "training": 1.0},
            "value_bits": 16,
            "saturated": 0,
            "values": 1000,
        },
    }


def _figures() -> Event:
    counts = np.full((2, 4), 5)
    confusion = np.array([[18, 2], [3, 17]])
    return figures(12.0, {"confusion": confusion, "positives": counts, "negatives": counts}, CLASSES)


def predict(folder: Path, images: int = 120) -> None:
    """What an arm's network said of test images, and what its maps came to, as training leaves it."""
    seed, arm = int(folder.parent.name.removeprefix("seed-")), folder.name
    fake_predictions("federated" if arm == "explainable" else arm, seed, images).save(
        folder / "predictions.parquet"
    )
    values = fake_explanations(arm, seed, images).values
    columns = {name: column for name, column in values.columns.items() if name != "accuracy"}
    dataclasses.replace(values, columns=columns).save(folder / "explanations.parquet")


def age(folder: Path, seconds: float) -> None:
    """Let all files of a folder be so old."""
    then = time.time() - seconds
    for path in folder.rglob("*"):
        os.utime(path, (then, then))


def view_of(
    run: Path, *, results: Results | None = None, arm: str = "", now: float | None = None
) -> StudyView:
    """The page of a run folder, before it becomes a page."""
    files = StudyFiles(run)
    study = files.study()
    where = standing(files, study, time.time() if now is None else now)
    chosen: ArmState | None = next((entry for entry in where.arms if entry.arm == arm), None)
    return study_view(files, study, where, results or Results(), chosen)


def study_app(run: Path, folder: Path) -> FastAPI:
    """The page behind the guard; the audit log is ``folder/audit.jsonl``."""
    app = make_app(folder)
    app.include_router(study_router(run, AuditLog(folder / "audit.jsonl")))
    return app


def append(folder: Path, text: str) -> None:
    """A line in a history, as it is while it is being written."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / HISTORY_NAME).open("a", encoding="utf-8") as stream:
        stream.write(text)
