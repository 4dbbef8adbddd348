"""One trained network with its advice, for images of any origin: what commands and the viewer share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedlens.advice_fitting import Fitted
from fedlens.decision.advice import UNCALIBRATED, Advice, refuse
from fedlens.decision.modality import colour_of
from fedlens.decision.rules import Judged, Rules
from fedlens.decision.settings import DecisionSettings
from fedlens.errors import DataError, UnreadableImageError
from fedlens.explain.methods import RECOMMENDED, find_method
from fedlens.explain.saliency import SaliencyMap, saliency_maps
from fedlens.explain.straying import cell_of, reasons_in_words, stray_reasons, stray_values
from fedlens.hospital.decision import Outputs, outputs_of
from fedlens.image_loading import GivenImage, KnownImages, load_image, shown_name
from fedlens.imaging.field import find_field
from fedlens.imaging.preprocess import preprocess, to_input
from fedlens.models.checkpoint import Contract
from fedlens.models.network import Network
from fedlens.study import SMALLEST_FIELD


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


@dataclass(frozen=True, eq=False)
class Ready:
    """An image that the network may judge: as it was given, and prepared as each kind it may be of.

    Attributes:
        name: What results call it.
        given: As it was given.
        modalities: Kinds that it may be of.
        prepared: As each of them, uint8 (S, S, channels).
    """

    name: str
    given: GivenImage
    modalities: tuple[str, ...]
    prepared: tuple[npt.NDArray[np.uint8], ...]


@dataclass(frozen=True, eq=False)
class Seen:
    """An image as the network saw it.

    Attributes:
        given: As it was given.
        pixels: As it was prepared, uint8 (S, S, channels).
        features: float32 (K,), the network's last maps averaged over places.
        map: Of the likeliest class by the recommended method; None where nobody needed it.
    """

    given: GivenImage
    pixels: npt.NDArray[np.uint8]
    features: npt.NDArray[np.float32]
    map: SaliencyMap | None


@dataclass(frozen=True, eq=False)
class Found:
    """What came of one image.

    Attributes:
        prediction: What is said of it.
        seen: None where the network was not shown it: it cannot be read, or is refused.
    """

    prediction: Prediction
    seen: Seen | None = None


class Predictor:
    """Judges batches of images with one network.

    Loading and preparing may happen in any thread, judging and explaining in one at a time.

    Args:
        network: In evaluation mode, on the device that is to be used.
        contract: Its contract.
        fitted: Its advice.
        known: Images of the study, looked up by content.
        settings: Coverage, rules of referral; as fitted where None.
        modality: Kind of all images; found out image by image when empty.
    """

    def __init__(
        self,
        network: Network,
        contract: Contract,
        fitted: Fitted,
        known: KnownImages,
        *,
        settings: DecisionSettings | None = None,
        modality: str = "",
    ) -> None:
        self._network = network
        self._contract = contract
        self._bundle = fitted.bundle
        self._rules: Rules | None = fitted.bundle.rules(settings) if fitted.bundle else None
        self._known = known
        self._modality = modality
        self._cell = cell_of(network) if self._looks_for_straying() else 0.0

    def load(self, image: tuple[Path, int | None]) -> Ready | Prediction:
        """Read and prepare an image, given as ``find_images`` gives it; a prediction where that fails."""
        path, frame = image
        try:
            given = load_image(path, self._known, frame=frame or 0)
        except UnreadableImageError as error:
            return Prediction(shown_name(image), problem=error.reason)
        return self.prepare(given, shown_name(image))

    def prepare(self, given: GivenImage, name: str) -> Ready | Prediction:
        """Prepare an image; a prediction where the network must not judge it, or nobody can prepare it.

        Args:
            given: The image.
            name: What results call it.
        """
        modality = self._modality or given.modality
        kinds: tuple[str, ...] = (modality or "other",)
        if self._bundle is not None:
            colour = colour_of(given.pixels)
            refusal = self._bundle.known.refusal(modality, colour)
            if refusal:
                return Prediction(name, advice=refuse(refusal), modality=modality)
            kinds = self._bundle.known.likely(modality, colour)
        try:
            prepared = tuple(preprocess(given.pixels, self._contract.preprocess, kind) for kind in kinds)
        except DataError as error:
            return Prediction(name, problem=error.what)
        return Ready(name, given, kinds, prepared)

    def judge(self, images: Sequence[Ready | Prediction], *, maps: bool = False) -> list[Found]:
        """What is said of each image, in order; predictions stay as they are.

        Args:
            images: As :meth:`load` or :meth:`prepare` gives them.
            maps: Make maps even where advice does not look at them.
        """
        judged = self._judged([image for image in images if isinstance(image, Ready)], maps)
        return [Found(image) if isinstance(image, Prediction) else next(judged) for image in images]

    def explain(
        self,
        images: Sequence[GivenImage],
        pixels: npt.NDArray[np.uint8],
        *,
        method: str = RECOMMENDED,
        label: str = "",
    ) -> list[SaliencyMap]:
        """Maps of some images.

        Args:
            images: As they were given.
            pixels: The same ones as they were prepared, uint8 (N, S, S, channels).
            method: Name in :mod:`fedlens.explain.methods`.
            label: Class to explain; each image's likeliest when empty.

        Raises:
            SettingsError: No method has this name.
            ExplanationError: The method does not suit the network, or its outputs are not finite.
            ValueError: There is no such class.
        """
        device = next(self._network.parameters()).device
        targets = None
        if label:
            number = self._contract.classes.index(label)
            targets = torch.full((len(pixels),), number, device=device)
        return saliency_maps(
            self._network,
            to_input(torch.from_numpy(pixels)).to(device),
            classes=self._contract.classes,
            files=[str(image.path) for image in images],
            method=method,
            targets=targets,
            image_sha256s=[image.sha256 for image in images],
            reproduce={"weights_sha256": self._contract.weights_sha256},
        )

    def _judged(self, ready: Sequence[Ready], maps: bool) -> Iterator[Found]:
        if not ready:
            return
        outputs, chosen = self._outputs(ready)
        pixels = np.stack([entry.prepared[kind] for entry, kind in zip(ready, chosen, strict=True)])
        kinds = [entry.modalities[kind] for entry, kind in zip(ready, chosen, strict=True)]
        drawn: Sequence[SaliencyMap | None] = [None] * len(ready)
        straying: list[str] = []
        if maps or self._cell:
            drawn = made = self.explain([entry.given for entry in ready], pixels)
            straying = self._straying(made, pixels, kinds) if self._cell else []
        judged: Sequence[Judged | None] = [None] * len(ready)
        if self._rules is not None:
            judged = self._rules.judge(outputs.log_p, outputs.features, straying)
        for index, entry in enumerate(ready):
            yield Found(
                self._row(entry.name, outputs.log_p[index], judged[index], kinds[index]),
                Seen(entry.given, pixels[index], outputs.features[index], drawn[index]),
            )

    def _outputs(self, ready: Sequence[Ready]) -> tuple[Outputs, list[int]]:
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
