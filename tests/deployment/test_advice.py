"""Advice between machines: fitted at the coordinator from hospitals' sums, and fetched with the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from nvflare.private.fed.server.server_cmd_modules import ServerCommandModules

from fedlens.arm_path import FEDERATED
from fedlens.arms import train_arm
from fedlens.coordinator.checkpoints import advice_folder
from fedlens.coordinator.history import Event, read_history
from fedlens.decision.bundle import BUNDLE_NAMES, has_bundle, kept_bundle
from fedlens.deployment.desk import Desk
from fedlens.deployment.kit import Kit
from fedlens.deployment.session import Answer, Session, collect_results, make_submission
from fedlens.deployment.study_run import LOG_NAME, StudyRun, keep_submission
from fedlens.engines import nvflare
from fedlens.models.checkpoint import read_contract
from fedlens.preparation import prepare
from fedlens.protocol.codec import encode
from fedlens.protocol.messages import BasisRequest, ScoresRequest
from fedlens.protocol.roster import COORDINATOR
from fedlens.run_folder import MODEL_NAME
from fedlens.study import Study

from .in_process import NAMES, InProcessCarrier, make_kits, make_study


class AtTheDesk(Session):
    """The lead's session with a coordinator's desk, without FLARE in between."""

    def __init__(self, kit: Kit) -> None:
        self._desk = Desk()
        self._desk._kit = kit

    def ask(self, what: str, **asked: Any) -> Answer:
        """As the desk answers."""
        return self._desk.answer(what, asked)


@pytest.fixture
def kits(tmp_path: Path) -> dict[str, Kit]:
    return make_kits(tmp_path / "kits", sealing="optional")


@pytest.fixture
def carrier(drawn: Path, kits: dict[str, Kit], monkeypatch: pytest.MonkeyPatch) -> InProcessCarrier:
    monkeypatch.setattr(nvflare, "_PAUSE_SECONDS", 0.005)
    monkeypatch.setattr(ServerCommandModules, "cmd_modules", [])
    return InProcessCarrier(kits, drawn / "machines")


def advised_study(drawn: Path, mode: str = "auto") -> Study:
    return make_study(
        drawn,
        mode,
        federation={"rounds": 1},
        decision={"federated": True},
        sealing={"mode": mode},
    )


def run_study(study: Study, kit: Kit, carrier: InProcessCarrier) -> StudyRun:
    keep_submission(kit, encode(make_submission(study)))
    run = StudyRun(kit, study.name, carrier)
    run.run()
    assert (run.standing.state, run.standing.reason) == ("finished", "")
    return run


def decision(run: StudyRun) -> Event:
    (event,) = [event for event in read_history(run.arm) if event["event"] == "decision"]
    return event


@pytest.mark.parametrize("mode", ["off", "auto"])
def test_it_is_that_of_one_machine_and_comes_with_the_network(
    mode: str, drawn: Path, kits: dict[str, Kit], carrier: InProcessCarrier, tmp_path: Path
) -> None:
    study = advised_study(drawn, mode)
    alone = train_arm(prepare(study.model_copy(update={"output": tmp_path / "alone"})), FEDERATED)
    run = run_study(study, kits[COORDINATOR], carrier)

    kinds = carrier.kinds("north")
    assert kinds.count(BasisRequest.kind) == kinds.count(ScoresRequest.kind) == 1
    assert "Advice was fitted over 4 hospitals" in (run.folder / LOG_NAME).read_text()
    arm = collect_results(AtTheDesk(kits[COORDINATOR]), study, tmp_path / "fetched")
    for name in BUNDLE_NAMES:
        fetched = (arm / MODEL_NAME / name).read_bytes()
        assert fetched == (advice_folder(run.arm) / name).read_bytes()
        assert fetched == (alone.folder / MODEL_NAME / name).read_bytes()
    bundle = kept_bundle(arm / MODEL_NAME, read_contract(arm / MODEL_NAME))
    assert bundle is not None and bundle.facts.hospitals == len(NAMES)


def test_a_study_whose_hospitals_do_not_answer_finishes_without(
    drawn: Path, kits: dict[str, Kit], carrier: InProcessCarrier, tmp_path: Path
) -> None:
    carrier.fails = lambda hospital, kind: (
        "Its disk is full." if kind == ScoresRequest.kind and hospital in ("south", "west") else ""
    )
    run = run_study(advised_study(drawn), kits[COORDINATOR], carrier)

    assert "west: Its disk is full." in decision(run)["reason"]
    assert "No advice was fitted across hospitals" in (run.folder / LOG_NAME).read_text()
    arm = collect_results(AtTheDesk(kits[COORDINATOR]), run.study, tmp_path / "fetched")
    assert read_contract(arm / MODEL_NAME).round == 1 and not has_bundle(arm / MODEL_NAME)

    # Resumed once they are back, with hospitals' processes started again, it is fitted after all.
    carrier.fails = lambda hospital, kind: ""
    carrier.restart(*NAMES)
    again = StudyRun(kits[COORDINATOR], run.study.name, carrier)
    again.run()
    assert again.standing.state == "finished" and decision(again)["reason"] == ""
