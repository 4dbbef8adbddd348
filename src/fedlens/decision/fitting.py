"""Fitting advice on one machine, from a finished network and its study's images.

Every hospital's images give sums, sums are added, and the rest follows from the total, as it does where
hospitals are machines of their own. Training and validation images are used, test images never.
"""

from __future__ import annotations

from pathlib import Path

from fedlens.decision.bundle import Basis, DecisionBundle
from fedlens.decision.settings import DecisionSettings
from fedlens.decision.totals import BasisTotals, ScoreTotals
from fedlens.errors import HistoryError
from fedlens.hospital.decision import basis_totals, feature_count, image_outputs, score_totals
from fedlens.hospital.device import choose_device
from fedlens.models.checkpoint import load_checkpoint
from fedlens.preparation import PreparedStudy
from fedlens.progress import Progress, silent
from fedlens.reports.measures import LOCAL
from fedlens.reports.predictions import PREDICTIONS_NAME, load_predictions
from fedlens.run_folder import HOSPITALS_NAME


def fit_decisions(
    folder: Path,
    prepared: PreparedStudy,
    settings: DecisionSettings | None = None,
    *,
    progress: Progress = silent,
) -> DecisionBundle:
    """Fit advice for a checkpoint; the caller saves it.

    Args:
        folder: A checkpoint of the study.
        prepared: The study's images.
        settings: How; as the study says where None.
        progress: Told after every batch, hospital by hospital.

    Returns:
        What ``DecisionBundle.save`` writes beside the checkpoint.

    Raises:
        CheckpointError: The checkpoint is torn, or of other classes.
        DataError: No validation images.
        HistoryError: The network was tested on other images than the study's test images are now.
    """
    settings = settings or prepared.study.decision
    check_split(folder, prepared)
    network, contract = load_checkpoint(folder, classes=prepared.classes)
    network.to(choose_device(prepared.study.training.device))
    owners = _owners(folder, prepared)
    outputs, labels = {}, {}
    basis_sum = BasisTotals.zero(network.classes, feature_count(network))
    for owner in owners:
        validation = prepared.images("validation", owner)
        outputs[owner], labels[owner] = image_outputs(network, validation), validation.labels
        basis_sum += basis_totals(
            network,
            prepared.images("train", owner),
            outputs[owner],
            labels[owner],
            step=f"fit advice, {owner}",
            progress=progress,
        )
    basis = Basis.fit(basis_sum, settings)
    scores = ScoreTotals.zero(network.classes)
    for owner in owners:
        scores += score_totals(outputs[owner], labels[owner], basis.temperature, basis.statistics)
    return DecisionBundle.of(
        basis,
        scores,
        classes=contract.classes,
        weights_sha256=contract.weights_sha256,
        hospitals=len(owners),
        settings=settings,
    )


def check_split(folder: Path, prepared: PreparedStudy) -> None:
    """Refuse images that were split anew since the network was trained.

    What it learnt from would then be among the validation images, and advice far too sure of itself. The
    study's settings do not tell: another import or audit moves images under the same settings.

    Args:
        folder: The checkpoint's; nothing is checked where no predictions lie beside it.
        prepared: The study's images.

    Raises:
        HistoryError: The predictions on test images are of others than the study's test images are now.
    """
    own = folder.resolve().parent
    arm = own.parent.parent if own.parent.name == HOSPITALS_NAME else own
    if not (arm / PREDICTIONS_NAME).is_file():
        return
    tested = set(load_predictions(arm / PREDICTIONS_NAME).image_ids.tolist())
    if tested != {record.image_id for record in prepared.images("test").records}:
        raise HistoryError(
            f"{arm} was tested on other images than the study's test images are now.",
            why="Images were imported, audited or split anew, so that it may have learnt from what are now "
            "validation images.",
            fix="Train that arm again, into an empty folder.",
        )


def _owners(folder: Path, prepared: PreparedStudy) -> tuple[str, ...]:
    """Hospitals whose images a network learnt from: one alone under FedBN and in local training."""
    place = folder.resolve().parent
    if place.parent.name == HOSPITALS_NAME and place.name in prepared.hospitals:
        return (place.name,)
    alone = place.name.removeprefix(LOCAL)
    return (alone,) if place.name.startswith(LOCAL) and alone in prepared.hospitals else prepared.hospitals
