"""Figures on test images, measured beside the pages: whoever asks gets what is known so far."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedlens.errors import FedLensError
from fedlens.imaging.manifest import load_manifest
from fedlens.preparation import plan_images
from fedlens.reports.comparison import ARM_ORDER, ArmPredictions, Comparison, compare
from fedlens.reports.explanation_comparison import (
    ArmExplanations,
    ExplanationComparison,
    arm_explanations,
    compare_explanations,
)
from fedlens.reports.explanations import load_explanations
from fedlens.reports.measures import LOCAL
from fedlens.reports.predictions import load_predictions
from fedlens.reports.shares import Share, shares_of
from fedlens.run_folder import IMAGES_NAME, check_images
from fedlens.study import Study
from fedlens.viewer.study_files import ArmFolder, Mark, StudyFiles, mark

_LOG = logging.getLogger(__name__)
_RESAMPLES = 1000

Key = tuple[tuple[ArmFolder, Mark | None, Mark | None], ...]


@dataclass(frozen=True, eq=False)
class Results:
    """What arms that have finished come to on test images.

    Attributes:
        version: Another number is another content.
        busy: Newer figures are being measured.
        comparison: Of all finished arms; None before the first.
        explanations: Of those whose maps were measured.
        shares: Images by hospital, class and split; empty where they are not on this machine.
        problem: Why there are no figures; empty otherwise.
    """

    version: int = 0
    busy: bool = False
    comparison: Comparison | None = None
    explanations: ExplanationComparison | None = None
    shares: tuple[Share, ...] = ()
    problem: str = ""


class ResultsDesk:
    """Measures in a thread of its own whenever an arm has come to its end.

    Args:
        root: The run folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._key: tuple[Key, bool] | None = None
        self._results = Results()
        self._thread: threading.Thread | None = None

    def results(self, places: Sequence[ArmFolder], study: Study | None) -> Results:
        """What is known; begins to measure where files have changed since.

        Args:
            places: Arms that have begun.
            study: Their settings.
        """
        key = (_key(places), study is not None)
        with self._lock:
            if key != self._key and self._thread is None:
                self._key = key
                self._thread = threading.Thread(
                    target=self._measure, args=(key[0], study), name="study results", daemon=True
                )
                self._results = dataclasses.replace(self._results, busy=True)
                self._thread.start()
            return self._results

    def wait(self) -> None:
        """Until what has been begun is measured."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def _measure(self, key: Key, study: Study | None) -> None:
        found = Results(problem="Figures cannot be measured; the viewer's log says why.")
        try:
            found = measure(self._root, key, study)
        finally:
            with self._lock:
                self._thread = None
                self._results = dataclasses.replace(found, version=self._results.version + 1)


def measure(root: Path, key: Key, study: Study | None) -> Results:
    """Measure all finished arms on test images.

    Args:
        root: The run folder.
        key: Arms, and the marks of their predictions and explanations.
        study: Their settings.
    """
    resamples = study.compare.bootstrap if study else _RESAMPLES
    shares = _shares(root, study)
    try:
        arms = _finished(key)
        if not arms:
            return Results(shares=shares)
        comparison = compare(arms, resamples=resamples)
        explanations = compare_explanations(_explanations(key, arms), resamples=resamples)
    except FedLensError as error:
        return Results(shares=shares, problem=f"{error.what} {error.why}".strip())
    return Results(comparison=comparison, explanations=explanations, shares=shares)


def _key(places: Sequence[ArmFolder]) -> Key:
    files = ((place, *StudyFiles.result_files(place)) for place in places)
    return tuple((place, mark(predicted), mark(explained)) for place, predicted, explained in files)


def _finished(key: Key) -> list[ArmPredictions]:
    """Arms with predictions; hospitals alone only where all of them are there, since they are averaged."""
    arms = [
        ArmPredictions(place.seed, place.arm, load_predictions(StudyFiles.result_files(place)[0]))
        for place, predicted, _ in key
        if predicted is not None and (place.arm in ARM_ORDER or place.arm.startswith(LOCAL))
    ]
    alone = {(arm.seed, arm.arm) for arm in arms}
    return [
        arm
        for arm in arms
        if not arm.arm.startswith(LOCAL)
        or all((arm.seed, LOCAL + name) in alone for name in set(arm.predictions.hospitals))
    ]


def _explanations(key: Key, arms: Sequence[ArmPredictions]) -> list[ArmExplanations]:
    found = {(arm.seed, arm.arm): arm for arm in arms}
    return [
        arm_explanations(found[place.seed, place.arm], load_explanations(StudyFiles.result_files(place)[1]))
        for place, _, explained in key
        if explained is not None and (place.seed, place.arm) in found
    ]


def _shares(root: Path, study: Study | None) -> tuple[Share, ...]:
    """Images of each hospital, where the images that the run is over lie here, imported and audited."""
    if study is None or not (root / IMAGES_NAME).is_file():
        return ()
    try:
        if not all(record.cluster for record in load_manifest(study.data.folder)):
            return ()
        manifest = plan_images(study)
        check_images(root, manifest)
    except (FedLensError, OSError) as error:
        _LOG.info("Images of the study are not counted: %s", error)
        return ()
    return shares_of(manifest)
