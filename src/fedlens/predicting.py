"""``fedlens predict``: probabilities, prediction sets and advice for any readable images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedlens.advice_fitting import Fitted, fitted_advice
from fedlens.decision.advice import UNCALIBRATED, Advice, refuse
from fedlens.decision.modality import colour_of
from fedlens.decision.rules import Judged, Rules
from fedlens.decision.settings import DecisionSettings
from fedlens.errors import DataError, SettingsError, UnreadableImageError
from fedlens.explain.methods import RECOMMENDED, find_method
from fedlens.explain.saliency import SaliencyMap, saliency_maps
from fedlens.explain.straying import cell_of, reasons_in_words, stray_reasons, stray_values
from fedlens.hospital.decision import Outputs, outputs_of
from fedlens.hospital.device import choose_device
from fedlens.image_loading import (
    GivenImage,
    KnownImages,
    distinct_names,
    find_images,
    load_image,
    shown_name,
)
from fedlens.imaging.field import find_field
from fedlens.imaging.preprocess import check_modality, preprocess, to_input
from fedlens.models.checkpoint import Contract
from fedlens.models.network import Network
from fedlens.progress import Progress, silent
from fedlens.study import SMALLEST_FIELD
from fedlens.trained_network import load_trained

_BATCH = 16
_THREADS = 4


@dataclass(frozen=True)
class Prediction:
    """What is said of one image.

    Attributes:
        file: The image, as it was given; ``#n`` follows for frame n of a multi-frame DICOM file.
        probabilities: Class and calibrated probability in the order of the outputs; empty for an image
            that cannot be read or is refused.
        label_set: Classes of the prediction set, the likeliest first; may be empty.
        advice: And its reasons; None where the image cannot be read.
        modality: As it was prepared.
        distance: From the training images, about 1 for images like them; None where it is not known.
        problem: Why the image cannot be read; empty where it can.
        map: File of the saliency map over the image; empty where none was asked for.
    """

    file: str
    probabilities: tuple[tuple[str, float], ...] = ()
    label_set: tuple[str, ...] = ()
    advice: Advice | None = None
    modality: str = ""
    distance: float | None = None
    problem: str = ""
    map: str = ""

    @property
    def likeliest(self) -> tuple[str, float] | None:
        """The likeliest class and its probability."""
        return max(self.probabilities, key=lambda pair: pair[1]) if self.probabilities else None

    def description(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "file": self.file,
            "advice": self.advice.kind if self.advice else None,
            "reasons": list(self.advice.reasons) if self.advice else [],
            "likeliest": self.likeliest[0] if self.likeliest else None,
            "probabilities": dict(self.probabilities),
            "set": list(self.label_set),
            "modality": self.modality,
            "distance": self.distance,
            "map": self.map or None,
            "problem": self.problem or None,
        }


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
    predictor = _Predictor(network, contract, fitted, settings, modality, KnownImages(folder))
    predictor.maps_in = (out or run / "predictions") if maps else None
    names = distinct_names([path for path, _ in found])
    rows: list[Prediction] = []
    for first in range(0, len(found), _BATCH):
        progress("predict", first, len(found))
        rows += predictor.predict(found[first : first + _BATCH], names[first : first + _BATCH])
    progress("predict", len(found), len(found))
    return PredictResult(tuple(rows), contract.classes, fitted.bundle is not None, fitted.note)


@dataclass(frozen=True)
class _Ready:
    """An image that the network may judge: as it was given, and prepared as each kind it may be of."""

    place: int
    given: GivenImage
    modalities: tuple[str, ...]
    prepared: tuple[npt.NDArray[np.uint8], ...]


class _Predictor:
    """Predicts batches of images with one network."""

    def __init__(
        self,
        network: Network,
        contract: Contract,
        fitted: Fitted,
        settings: DecisionSettings | None,
        modality: str,
        known: KnownImages,
    ) -> None:
        self._network = network
        self._contract = contract
        self._bundle = fitted.bundle
        self._rules: Rules | None = fitted.bundle.rules(settings) if fitted.bundle else None
        self._modality = modality
        self._known = known
        self._cell = cell_of(network) if self._looks_for_straying() else 0.0
        self.maps_in: Path | None = None

    def predict(self, images: Sequence[tuple[Path, int | None]], names: Sequence[str]) -> list[Prediction]:
        """One row for each image, whatever is wrong with it."""
        with ThreadPoolExecutor(max_workers=_THREADS) as workers:
            loaded = list(workers.map(self._load, range(len(images)), images))
        rows = {place: entry for place, entry in enumerate(loaded) if isinstance(entry, Prediction)}
        ready = [entry for entry in loaded if isinstance(entry, _Ready)]
        for entry, row in zip(ready, self._judged(ready, images, names), strict=True):
            rows[entry.place] = row
        return [rows[place] for place in range(len(images))]

    def _load(self, place: int, image: tuple[Path, int | None]) -> _Ready | Prediction:
        path, frame = image
        try:
            given = load_image(path, self._known, frame=frame or 0)
            modality = self._modality or given.modality
            kinds: tuple[str, ...] = (modality or "other",)
            if self._bundle is not None:
                colour = colour_of(given.pixels)
                refusal = self._bundle.known.refusal(modality, colour)
                if refusal:
                    return Prediction(shown_name(image), advice=refuse(refusal), modality=modality)
                kinds = self._bundle.known.likely(modality, colour)
            prepared = tuple(preprocess(given.pixels, self._contract.preprocess, kind) for kind in kinds)
        except UnreadableImageError as error:
            return Prediction(shown_name(image), problem=error.reason)
        except DataError as error:
            return Prediction(shown_name(image), problem=error.what)
        return _Ready(place, given, kinds, prepared)

    def _judged(
        self, ready: Sequence[_Ready], images: Sequence[tuple[Path, int | None]], names: Sequence[str]
    ) -> Iterator[Prediction]:
        if not ready:
            return
        outputs, chosen = self._outputs(ready)
        pixels = np.stack([entry.prepared[kind] for entry, kind in zip(ready, chosen, strict=True)])
        kinds = [entry.modalities[kind] for entry, kind in zip(ready, chosen, strict=True)]
        maps = self._maps(ready, pixels)
        straying = self._straying(maps, pixels, kinds) if self._cell else []
        judged: Sequence[Judged | None] = [None] * len(ready)
        if self._rules is not None:
            judged = self._rules.judge(outputs.log_p, outputs.features, straying)
        for index, entry in enumerate(ready):
            row = self._row(
                shown_name(images[entry.place]), outputs.log_p[index], judged[index], kinds[index]
            )
            if self.maps_in is not None:
                files = maps[index].save(
                    self.maps_in, names[entry.place], entry.given.pixels, mask=entry.given.mask
                )
                row = dataclasses.replace(row, map=str(files["png"]))
            yield row

    def _outputs(self, ready: Sequence[_Ready]) -> tuple[Outputs, list[int]]:
        """Outputs for each image as the kind that brings it closest to the training images, and which."""
        found = outputs_of(self._network, np.concatenate([np.stack(entry.prepared) for entry in ready]))
        rows, chosen, first = [], [], 0
        for entry in ready:
            kinds = slice(first, first + len(entry.prepared))
            best = 0
            if len(entry.prepared) > 1 and self._rules is not None:
                best = int(self._rules.statistics.distances(found.features[kinds]).argmin())
            rows.append(first + best)
            chosen.append(best)
            first = kinds.stop
        return Outputs(found.log_p[rows], found.features[rows]), chosen

    def _looks_for_straying(self) -> bool:
        suits = find_method(RECOMMENDED).suitable(self._network)
        wanted = self._rules is not None and self._rules.settings.straying
        return suits and wanted and self._contract.image_size >= SMALLEST_FIELD

    def _maps(self, ready: Sequence[_Ready], pixels: npt.NDArray[np.uint8]) -> list[SaliencyMap]:
        if not self._cell and self.maps_in is None:
            return []
        device = next(self._network.parameters()).device
        return saliency_maps(
            self._network,
            to_input(torch.from_numpy(pixels)).to(device),
            classes=self._contract.classes,
            files=[str(entry.given.path) for entry in ready],
            image_sha256s=[entry.given.sha256 for entry in ready],
            reproduce={"weights_sha256": self._contract.weights_sha256},
        )

    def _straying(
        self, maps: Sequence[SaliencyMap], pixels: npt.NDArray[np.uint8], kinds: Sequence[str]
    ) -> list[str]:
        fields = [find_field(each, kind) for each, kind in zip(pixels, kinds, strict=True)]
        values = stray_values(np.stack([each.values for each in maps]), fields, self._cell)
        return [reasons_in_words(stray_reasons(values, index)) for index in range(len(maps))]

    def _row(
        self, file: str, log_p: npt.NDArray[np.float64], judged: Judged | None, modality: str
    ) -> Prediction:
        classes = self._contract.classes
        if judged is None:
            chances = tuple(zip(classes, np.exp(log_p).tolist(), strict=True))
            return Prediction(file, chances, advice=UNCALIBRATED, modality=modality)
        return Prediction(
            file=file,
            probabilities=tuple(zip(classes, judged.probabilities, strict=True)),
            label_set=judged.label_set,
            advice=judged.advice,
            modality=modality,
            distance=judged.distance,
        )
