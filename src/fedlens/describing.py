"""``fedlens card``: the model card of a run's network, from what its folder holds."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedlens.coordinator.history import HISTORY_NAME, read_history
from fedlens.decision.bundle import kept_bundle
from fedlens.errors import DataError, HistoryError
from fedlens.explained_arms import FEDERATION_ARMS, arm_explanation, switched_on
from fedlens.exporting import EXPORT_NAME
from fedlens.federation_report import holds_only_a_history
from fedlens.files import write_text
from fedlens.models.checkpoint import Contract, load_checkpoint
from fedlens.preparation import plan_images
from fedlens.progress import Progress, silent
from fedlens.reports.comparison import Comparison, compare, load_arms
from fedlens.reports.decision import DecisionResults, decision_results
from fedlens.reports.document import as_html, as_markdown
from fedlens.reports.explanation_comparison import compare_explanations, load_arm_explanations
from fedlens.reports.explanations import EXPLANATIONS_NAME, load_explanations
from fedlens.reports.html import main_arm
from fedlens.reports.known_failures import stray_shares
from fedlens.reports.model_card import CardInput, model_card
from fedlens.reports.predictions import Predictions
from fedlens.reports.provenance import now, shareable, versions
from fedlens.reports.sealing import sealing_notes
from fedlens.reports.shares import Share, shares_of
from fedlens.run_folder import IMAGES_NAME, MODEL_NAME, hold_images, kept_study
from fedlens.study import Study

CARD_PAGE = "model-card.html"
CARD_TEXT = "model-card.md"


@dataclass(frozen=True)
class Card:
    """What was written."""

    page: Path
    text: Path


def write_card(run: Path, *, arm: str = "", out: Path | None = None, progress: Progress = silent) -> Card:
    """Write ``model-card.html`` and ``model-card.md``, which say the same; no image is in them.

    The network is that of the first seed; figures are means over all seeds. Nothing is trained or measured
    anew: maps come from ``fedlens report``, a temperature and sets from what was fitted for the checkpoint.

    Args:
        run: Output folder of a run or comparison on one machine.
        arm: Whose network; ``federated`` where there is one, else the last arm.
        out: Where to write; ``run`` by default.
        progress: Called with the step, and how far it is.

    Raises:
        HistoryError: No finished arm of that name, no settings, or the run's images have changed.
        CheckpointError: The network's files, or what was fitted for them, are torn.
    """
    study = kept_study(run)
    if study is None:
        raise HistoryError(f"No study.json in {run}.", fix="Give the output folder of a run.")
    if holds_only_a_history(run):
        raise HistoryError(
            f"{run} holds the history of a run between machines.",
            why="Its test predictions stayed at the hospitals, so there is nothing to make a card of.",
            fix="Read its report instead: fedlens report RUN",
        )
    arms = load_arms(run)
    comparison = compare(arms, resamples=study.compare.bootstrap, progress=progress)
    arm = arm or main_arm(comparison)
    predictions = tuple(entry.predictions for entry in arms if entry.arm == arm)
    if not predictions:
        names = sorted({entry.arm for entry in arms})
        raise HistoryError(
            f"No finished arm {arm!r} in {run}.",
            why=f"It has {', '.join(names)}.",
            fix="Choose one with --arm.",
        )
    folder = run / f"seed-{comparison.seeds[0]}" / arm
    network, contract = load_checkpoint(folder / MODEL_NAME)
    explanations = compare_explanations(load_arm_explanations(run, arms), resamples=study.compare.bootstrap)
    document = model_card(
        CardInput(
            title=study.name,
            arm=arm,
            study=shareable(study),
            contract=contract,
            weights=sum(parameter.numel() for parameter in network.parameters()),
            comparison=comparison,
            predictions=predictions,
            explanations=explanations,
            stray_by_class=_stray_by_class(run, arm, comparison),
            decision=_decision(folder / MODEL_NAME, contract, predictions[0], study),
            shares=_shares(run, study, progress),
            audit=_json(study.data.folder / "audit.json"),
            sealing=_sealing(folder),
            minded=_minded(study, arm, contract, comparison.seeds[0]),
            images_digest=str(_json(run / IMAGES_NAME).get("digest", "")),
            exported=_exported(run),
            versions=versions(),
            created=now(),
        )
    )
    out = out or run
    write_text(out / CARD_PAGE, as_html(document))
    write_text(out / CARD_TEXT, as_markdown(document))
    return Card(out / CARD_PAGE, out / CARD_TEXT)


def _stray_by_class(run: Path, arm: str, comparison: Comparison) -> dict[str, float]:
    """Over all seeds together."""
    paths = (run / f"seed-{seed}" / arm / EXPLANATIONS_NAME for seed in comparison.seeds)
    found = [load_explanations(path) for path in paths if path.is_file()]
    found = [values for values in found if "strays" in values.columns]
    if not found:
        return {}
    return stray_shares(
        np.concatenate([values.true for values in found]),
        np.concatenate([values.columns["strays"] for values in found]),
        comparison.classes,
    )


def _decision(
    model: Path, contract: Contract, predictions: Predictions, study: Study
) -> DecisionResults | None:
    bundle = kept_bundle(model, contract)
    return decision_results(bundle, predictions, resamples=study.compare.bootstrap) if bundle else None


def _shares(run: Path, study: Study, progress: Progress) -> tuple[Share, ...]:
    """Counts of the run's own images; none where they have gone since."""
    manifest = None
    with contextlib.suppress(DataError):
        manifest = plan_images(study, progress=progress)
    if manifest is None:
        return ()
    hold_images(run, manifest)
    return shares_of(manifest)


def _sealing(folder: Path) -> tuple[str, ...]:
    return sealing_notes(read_history(folder)) if (folder / HISTORY_NAME).is_file() else ()


def _minded(study: Study, arm: str, contract: Contract, seed: int) -> Mapping[str, object] | None:
    """What this network's training did with explanations; None where its settings are not those kept here.

    ``fedlens run`` trains the federated arm as the study says and ``fedlens compare`` without explanations:
    only the digest in the contract tells which it was.
    """
    if arm not in FEDERATION_ARMS:
        return {}
    for settings in (study.explanation, arm_explanation(study.explanation, arm)):
        trained = study.model_copy(update={"seed": seed, "explanation": settings})
        if trained.digest() == contract.study:
            return switched_on(settings)
    return None


def _exported(run: Path) -> dict[str, str]:
    """Digest of each exported file that has a description."""
    found = {}
    for path in sorted((run / EXPORT_NAME).glob("*.json")):
        digest = _json(path).get("onnx_sha256")
        if digest:
            found[path.with_suffix(".onnx").name] = str(digest)
    return found


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return content
