"""``fedlens predict``: probabilities, prediction sets and advice for any readable images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fedlens.advice_fitting import fitted_advice
from fedlens.decision.settings import DecisionSettings
from fedlens.errors import SettingsError
from fedlens.hospital.device import choose_device
from fedlens.image_loading import KnownImages, distinct_names, find_images
from fedlens.imaging.preprocess import check_modality
from fedlens.predictor import Prediction, Predictor
from fedlens.progress import Progress, silent
from fedlens.trained_network import load_trained

__all__ = ["PredictResult", "Prediction", "predict_images"]

_BATCH = 16
_THREADS = 4


@dataclass(frozen=True)
class PredictResult:
    """What is said of all images.

    Attributes:
        images: In the order in which they were given or found.
        classes: Names in the order of the network's outputs.
        calibrated: Whether probabilities are calibrated, and sets and advice more than a default.
        note: What the reader should know about that; empty where all is well.
    """

    images: tuple[Prediction, ...]
    classes: tuple[str, ...]
    calibrated: bool
    note: str

    @property
    def unreadable(self) -> tuple[Prediction, ...]:
        """Images that could not be read."""
        return tuple(image for image in self.images if image.problem)


def predict_images(
    run: Path,
    paths: Sequence[Path],
    *,
    arm: str = "federated",
    out: Path | None = None,
    maps: bool = False,
    modality: str = "",
    settings: DecisionSettings | None = None,
    progress: Progress = silent,
) -> PredictResult:
    """Probabilities, prediction sets and advice of a trained network for any images.

    Advice is fitted on the study's validation images when it is first asked for, and kept beside the
    checkpoint. Where these images are not here either, probabilities come uncalibrated, and say so.

    Args:
        run: Output folder of a run or comparison, one arm's folder, or a checkpoint folder.
        paths: Image files, DICOM included, and folders, which are searched with all that is below.
        arm: Whose network to take where ``run`` holds several.
        out: Where maps are written; ``run/predictions`` by default.
        maps: Write each image's saliency map as overlay, array and JSON.
        modality: Kind of all images; when empty it is looked up by content in the study's manifest, then
            in the DICOM header, and then guessed from what the network knows.
        settings: Coverage, rules of referral; as fitted where None.
        progress: Called with the step, and how far it is.

    Raises:
        HistoryError: ``run`` holds no such network.
        CheckpointError: Its files are torn, or prepared images would differ in this version.
        SettingsError: No image was found, or an unknown modality.
    """
    if modality:
        check_modality(modality)
    found = find_images(paths)
    if not found:
        raise SettingsError(
            "No images found.", why=f"Looked in {', '.join(map(str, paths))}.", fix="Give image files."
        )
    folder, network, contract = load_trained(run, arm)
    network.to(choose_device("auto"))
    fitted = fitted_advice(folder, contract, progress=progress)
    predictor = Predictor(
        network, contract, fitted, KnownImages(folder), settings=settings, modality=modality
    )
    maps_in = (out or run / "predictions") if maps else None
    names = distinct_names([path for path, _ in found])
    rows: list[Prediction] = []
    for first in range(0, len(found), _BATCH):
        progress("predict", first, len(found))
        batch = slice(first, first + _BATCH)
        rows += _predicted(predictor, found[batch], names[batch], maps_in)
    progress("predict", len(found), len(found))
    return PredictResult(tuple(rows), contract.classes, fitted.bundle is not None, fitted.note)


def _predicted(
    predictor: Predictor,
    images: Sequence[tuple[Path, int | None]],
    names: Sequence[str],
    maps_in: Path | None,
) -> Iterator[Prediction]:
    """One row for each image, whatever is wrong with it; maps are written where a folder is given."""
    with ThreadPoolExecutor(max_workers=_THREADS) as workers:
        loaded = list(workers.map(predictor.load, images))
    for name, found in zip(names, predictor.judge(loaded, maps=maps_in is not None), strict=True):
        row = found.prediction
        if maps_in is not None and found.seen is not None and found.seen.map is not None:
            given = found.seen.given
            files = found.seen.map.save(maps_in, name, given.pixels, mask=given.mask)
            row = dataclasses.replace(row, map=str(files["png"]))
        yield row
