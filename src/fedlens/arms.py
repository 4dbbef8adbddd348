"""Arms: the ways one study's images can be learnt from, all through one round loop.

=========== ===================================== ============================
arm         who trains                            steps
=========== ===================================== ============================
federated   every hospital on its own images      ``federation.rounds`` rounds
explainable the same, minding explanations        the same
central     one member that holds all images      one round for each pass
local-X     hospital X alone                      one round for each pass
=========== ===================================== ============================

Every arm passes its images ``training.passes`` times. A "federation" of one member is plain
training, so resume, history and checkpoints are the same code in every arm. Hospitals mind
explanations as ``study.explanation`` says; what it says in which arm of a comparison is in
:mod:`fedlens.explained_arms`. Central and local training never do, nor is there any round between
the first and the last to look at their maps for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedlens.arm_path import arm_path
from fedlens.coordinator.checkpoints import check_start
from fedlens.coordinator.gathering import Gathering
from fedlens.coordinator.plain import PlainGathering
from fedlens.coordinator.rounds import RoundsResult, Watch, nobody, run_rounds
from fedlens.coordinator.sealed import SealedGathering
from fedlens.coordinator.settings import CoordinatorSettings
from fedlens.engines.local import LocalEngine
from fedlens.explained_arms import unexplained
from fedlens.hospital.decision import feature_count
from fedlens.hospital.evaluation import predict
from fedlens.hospital.hospital import Hospital
from fedlens.hospital.images import HospitalImages
from fedlens.imaging.preprocess import digest
from fedlens.models.checkpoint import Contract, load_start, save_checkpoint
from fedlens.models.fingerprint import fingerprint
from fedlens.models.network import Network
from fedlens.models.parameters import buffer_names, norm_names, to_parameters
from fedlens.models.registry import build_network
from fedlens.preparation import PreparedStudy
from fedlens.progress import Progress, silent
from fedlens.reports.measures import LOCAL
from fedlens.reports.predictions import PREDICTIONS_NAME, Predictions
from fedlens.run_folder import HOSPITALS_NAME, MODEL_NAME, run_folder
from fedlens.sealing import seal_federation
from fedlens.study import FederationSettings, Study

CENTRAL = "central"


@dataclass(frozen=True)
class ArmResult:
    """One trained arm.

    Attributes:
        name: ``central``, ``local-<hospital>``, or an arm that all hospitals train together.
        folder: Holds ``history.jsonl``, ``rounds/``, ``model/``, ``predictions.parquet``.
        rounds: What the coordinator ended with.
        predictions: On the test images of all hospitals.
    """

    name: str
    folder: Path
    rounds: RoundsResult
    predictions: Predictions


def arm_folder(study: Study, name: str) -> Path:
    """Where an arm of the study keeps its files: ``<output>/seed-<seed>/<arm>``."""
    return arm_path(run_folder(study), study, name)


def train_arm(
    prepared: PreparedStudy,
    name: str,
    *,
    resume: bool = False,
    watch: Watch = nobody,
    progress: Progress = silent,
) -> ArmResult:
    """Train one arm to its end and write its model and test predictions.

    Args:
        prepared: The study's images; its ``explanation`` is what all hospitals together train with.
        name: ``central``, ``local-<hospital>``, or an arm that all hospitals train together.
        resume: Go on from the folder's last round; a finished arm is only read.
        watch: Told every round's event.
        progress: Called with the step, and how far it is.

    Raises:
        HistoryError: The folder holds another run, or ``resume`` is not set and it holds this one.
        NotEnoughHospitalsError: Too few hospitals answered.
    """
    study = _arm_study(prepared.study, name)
    folder = arm_folder(study, name)
    network = initial_network(study, classes=len(prepared.classes))
    members = _members(prepared, study, name, folder)
    settings = CoordinatorSettings.from_study(
        study,
        fingerprint=fingerprint(network),
        classes=prepared.classes,
        norm_names=norm_names(network),
        buffer_names=buffer_names(network),
        features=feature_count(network),
    )
    engine, gathering = _federation(study, settings, members, folder, resume=resume)
    rounds = run_rounds(
        settings,
        to_parameters(network),
        engine,
        folder,
        resume=resume,
        gathering=gathering,
        watch=watch,
        progress=lambda step, done, total: progress(f"{name}: {step}", done, total),
    )
    predictions = _predict(prepared, members, rounds)
    predictions.save(folder / PREDICTIONS_NAME)
    _save_models(prepared, study, members, rounds, folder)
    return ArmResult(name, folder, rounds, predictions)


def initial_network(study: Study, *, classes: int) -> Network:
    """The network every arm starts from: seeded by the study, or from ``model.start``."""
    network = build_network(
        study.model,
        classes=classes,
        channels=study.preprocess.channels,
        image_size=study.preprocess.size,
        seed=study.seed,
    )
    if study.model.start is not None:
        load_start(study.model.start, network)
    return network


def build_hospital(
    study: Study,
    name: str,
    splits: Mapping[str, HospitalImages],
    folder: Path,
    *,
    classes: Sequence[str],
    progress: Progress = silent,
) -> Hospital:
    """One hospital of a study, from its own images alone.

    Args:
        study: The settings every member of the study holds.
        name: As the roster spells it.
        splits: Its images by split name; ``train`` and ``validation`` at least.
        folder: Where its optimiser state and personal arrays stay.
        classes: Label order of the network's outputs.
        progress: Told after every batch of training.
    """
    return Hospital(
        name,
        study,
        initial_network(study, classes=len(classes)),
        splits,
        folder,
        batch_size=study.federation.batch_size or study.training.batch_size,
        class_names=classes,
        progress=progress,
    )


def _alone(name: str) -> bool:
    """Whether one member trains, without a federation."""
    return name == CENTRAL or name.startswith(LOCAL)


def _arm_study(study: Study, name: str) -> Study:
    if not _alone(name):
        return study
    alone = FederationSettings(
        rounds=max(1, round(study.training.passes)), minimum_hospitals=1, optimizer_state="keep"
    )
    # Alone, a hospital has nobody to hide its update among, and sends it to itself.
    unsealed = study.sealing.model_copy(update={"mode": "off"})
    explanation = unexplained(study.explanation).model_copy(update={"measures": "none"})
    # Advice for its network is fitted when somebody asks for it.
    decision = study.decision.model_copy(update={"federated": False})
    return study.model_copy(
        update={
            "federation": alone,
            "sealing": unsealed,
            "explanation": explanation,
            "decision": decision,
        }
    )


def _federation(
    study: Study, settings: CoordinatorSettings, members: list[Hospital], folder: Path, *, resume: bool
) -> tuple[LocalEngine, Gathering]:
    """Who carries messages to whom, and how the numbers come together."""
    if not study.sealed(len(members)):
        engine = LocalEngine(members)
        return engine, PlainGathering(settings, engine)
    check_start(folder, resume=resume)
    sealed, setup = seal_federation(study, members, folder)
    engine = LocalEngine(sealed)
    return engine, SealedGathering(settings, engine, setup)


def _members(prepared: PreparedStudy, study: Study, arm: str, folder: Path) -> list[Hospital]:
    """Hospitals of the arm, in roster order; ``central`` has one that holds every image."""
    together = list(prepared.hospitals)
    owners = ([""] if arm == CENTRAL else [arm.removeprefix(LOCAL)]) if _alone(arm) else together
    members = []
    for owner in owners:
        splits = {split: prepared.images(split, owner) for split in ("train", "validation")}
        name = owner or "all"
        home = folder / HOSPITALS_NAME / name
        members.append(build_hospital(study, name, splits, home, classes=prepared.classes))
    return members


def _predict(prepared: PreparedStudy, members: list[Hospital], rounds: RoundsResult) -> Predictions:
    """Every hospital predicts its own test images, with its personal arrays where it has some."""
    parameters, number = rounds.final_parameters, rounds.final_round
    by_name = {member.name: member for member in members}
    tests = [prepared.images("test", hospital) for hospital in prepared.hospitals]
    probabilities = [
        predict(by_name.get(hospital, members[0]).network_with(parameters, number), images)
        for hospital, images in zip(prepared.hospitals, tests, strict=True)
    ]
    records = [record for images in tests for record in images.records]
    return Predictions(
        image_ids=np.array([record.image_id for record in records], np.str_),
        hospitals=np.array([record.hospital for record in records], np.str_),
        sources=np.array([record.source for record in records], np.str_),
        groups=np.array([record.cluster or record.group for record in records], np.str_),
        true=np.concatenate([images.labels for images in tests]),
        probabilities=np.concatenate(probabilities),
        classes=prepared.classes,
    )


def _save_models(
    prepared: PreparedStudy, study: Study, members: list[Hospital], rounds: RoundsResult, folder: Path
) -> None:
    """The global network and its advice; under FedBN each hospital's own network, since these are whole."""
    parameters, number = rounds.final_parameters, rounds.final_round
    contract = Contract(
        model=study.model,
        classes=prepared.classes,
        preprocess=study.preprocess,
        preprocess_digest=digest(study.preprocess),
        fingerprint=fingerprint(members[0].network_with(parameters, number)),
        study=study.digest(),
        round=number,
    )
    save_checkpoint(folder / MODEL_NAME, parameters, contract)
    if rounds.advice is not None:
        rounds.advice.save(folder / MODEL_NAME)
    if study.federation.strategy == "fedbn":
        for member in members:
            own = to_parameters(member.network_with(parameters, number))
            save_checkpoint(folder / HOSPITALS_NAME / member.name / MODEL_NAME, own, contract)
