"""Advice for a checkpoint: read where it was fitted, or fitted where the study's images are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedlens.decision.bundle import DecisionBundle, kept_bundle
from fedlens.decision.fitting import fit_decisions
from fedlens.errors import DataError, HistoryError, SettingsError
from fedlens.models.checkpoint import Contract
from fedlens.preparation import prepare
from fedlens.progress import Progress, silent
from fedlens.run_folder import check_images, kept_study


@dataclass(frozen=True, eq=False)
class Fitted:
    """Advice for one checkpoint.

    Attributes:
        bundle: None where it cannot be fitted here.
        note: Why not, or what else to know; may be empty.
    """

    bundle: DecisionBundle | None
    note: str


def fitted_advice(folder: Path, contract: Contract, *, progress: Progress = silent) -> Fitted:
    """Advice for a checkpoint, fitted on first use and then kept beside it.

    Args:
        folder: The checkpoint's.
        contract: Its contract.
        progress: Told while fitting.

    Raises:
        CheckpointError: What is kept there is torn or of other weights.
    """
    kept = kept_bundle(folder, contract)
    if kept is not None:
        return Fitted(kept, "")
    study = kept_study(folder)
    if study is None:
        return Fitted(None, _without("the run kept no study.json"))
    try:
        prepared = prepare(study, progress=progress)
        # Other splits than the run's would put images it learnt from among the validation images.
        check_images(folder, prepared.manifest)
        bundle = fit_decisions(folder, prepared, progress=progress)
    except (DataError, HistoryError, SettingsError) as error:
        return Fitted(None, _without(error.what.rstrip(".")))
    try:
        bundle.save(folder)
    except OSError as error:
        return Fitted(bundle, f"Advice was fitted and cannot be kept in {folder}: {error.strerror}.")
    return Fitted(bundle, "")


def _without(reason: str) -> str:
    return (
        f"Probabilities are not calibrated: {reason}. Advice is fitted on first use where the study's "
        "images are; or copy decision.json and decision.safetensors beside the checkpoint."
    )
