"""The network and its cases: judged one after the other in the background, and at once when asked for."""

from __future__ import annotations

import contextlib
import hashlib
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

import fedlens
from fedlens.advice_fitting import Fitted, fitted_advice
from fedlens.errors import ExplanationError, UnreadableImageError
from fedlens.explain.methods import RECOMMENDED, method_names
from fedlens.explain.saliency import SaliencyMap
from fedlens.hospital.device import choose_device
from fedlens.image_loading import GivenImage, KnownImages
from fedlens.models.checkpoint import Contract
from fedlens.predictor import Found, Prediction, Predictor, Ready
from fedlens.progress import Progress, silent
from fedlens.trained_network import load_trained
from fedlens.viewer.background import Background
from fedlens.viewer.case import Case
from fedlens.viewer.collecting import StudyImages, folder_cases, study_images
from fedlens.viewer.judging import Judge, failed
from fedlens.viewer.loading import CaseLoader, SafeDecoder
from fedlens.viewer.neighbours import FEATURES_NAME, Candidate, Directions, Neighbour
from fedlens.viewer.recent import Recent
from fedlens.viewer.store import CaseStore, Confirmed

_BATCH = 4
_LOADERS = 2
_BATCHES_BETWEEN_SAVES = 200
_PREPARED = 128
_MAPS = 256
_SLOW = frozenset({"score-cam", "integrated-gradients", "occlusion"})
"""Methods that nobody waits for with a page open."""


class Library:
    """A trained network, its advice, and the cases of a store. Any thread may call it.

    Attributes:
        classes: Names in the order of the network's outputs.
        calibrated: Whether probabilities are calibrated, and sets and advice more than a default.
        note: What the reader should know about that, and about images that are not here; may be empty.
        methods: Names of the methods that suit the network and take no more than a moment, the recommended
            one first.
    """

    def __init__(
        self,
        predictor: Predictor,
        store: CaseStore,
        directions: Directions,
        loader: CaseLoader,
        *,
        classes: tuple[str, ...],
        methods: tuple[str, ...],
        calibrated: bool,
        note: str,
        groups: Mapping[str, str],
    ) -> None:
        self.classes = classes
        self.calibrated = calibrated
        self.note = note
        self.methods = methods
        self._predictor = predictor
        self._network = Judge(predictor)
        self._store = store
        self._directions = directions
        self._loader = loader
        self._groups = groups
        self._loaders = ThreadPoolExecutor(max_workers=_LOADERS, thread_name_prefix="viewer-loader")
        self._background = Background(self._step)
        self._prepared: Recent[str, npt.NDArray[np.uint8]] = Recent(_PREPARED)
        self._maps: Recent[tuple[str, str, str], SaliencyMap] = Recent(_MAPS)
        self._unlearnt: deque[Confirmed] | None = None
        self._unsaved = 0

    @classmethod
    def open(
        cls,
        run: Path,
        arm: str,
        store: CaseStore,
        *,
        hospital: str = "",
        paths: Sequence[Path] = (),
        decoder: SafeDecoder | None = None,
        progress: Progress = silent,
    ) -> Library:
        """Load a network and its advice, and fill the store with images.

        The study's test images are listed and all its others kept for reference, where they still are and
        its splits are the run's; then come images below ``paths``.

        Args:
            run: Output folder of a run or comparison, one arm's folder, or a checkpoint folder.
            arm: Whose network to take where ``run`` holds several.
            store: Where cases are kept; features are kept beside it.
            hospital: Whose study images are shown; all when empty.
            paths: Images, and folders of them.
            decoder: Decodes uploads, and DICOM files below ``paths``; without one, uploads are not decoded
                here at all.
            progress: Called with the step, and how far it is.

        Raises:
            HistoryError: ``run`` holds no such network.
            CheckpointError: Its files are torn, or prepared images would differ in this version.
            SettingsError: The study has no such hospital, or there is nothing at one of the paths.
        """
        folder, network, contract = load_trained(run, arm)
        network.to(choose_device("auto"))
        fitted = fitted_advice(folder, contract, progress=progress)
        found = study_images(folder, hospital=hospital, progress=progress)
        cases = [*found.cases, *folder_cases(paths, progress=progress)]
        stands_for = _digest(contract, fitted)
        store.bind(stands_for)
        store.replace(cases)
        statistics = fitted.bundle.statistics if fitted.bundle else None
        known = KnownImages(folder)
        suitable = set(method_names(network)) - _SLOW - {RECOMMENDED}
        return cls(
            Predictor(network, contract, fitted, known),
            store,
            Directions(store.path.parent / FEATURES_NAME, stands_for, statistics),
            CaseLoader(known, decoder),
            classes=contract.classes,
            methods=(RECOMMENDED, *(name for name in method_names(network) if name in suitable)),
            calibrated=fitted.bundle is not None,
            note=_joined(fitted, found),
            groups=found.groups,
        )

    def start(self) -> None:
        """Judge waiting cases in the background, uploads before all others; then those kept for reference."""
        self._background.start()

    def close(self) -> None:
        """End after the batch that is being judged."""
        self._background.stop()
        # What is lost is computed again.
        with contextlib.suppress(OSError):
            self._directions.save()
        self._loaders.shutdown()
        self._network.close()

    def undisturbed(self) -> contextlib.AbstractContextManager[None]:
        """A block inside which no new batch begins in the background: for what somebody waits for."""
        return self._background.held()

    def judge(self, case: Case, pixels: npt.NDArray[np.uint8], modality: str) -> Prediction:
        """What the network says of a case, ahead of all that wait; kept in the store.

        Args:
            case: The case.
            pixels: uint8 (H, W) grey or (H, W, 3) RGB.
            modality: As a header says; empty where none does. The study knows better of its own images.

        Raises:
            HistoryError: It cannot be kept.
        """
        return self._judge(case, self._loader.given(case, pixels, modality)).prediction

    def image(self, case: Case) -> GivenImage:
        """A case's image in 8 bits, with its outline where the study has one.

        Raises:
            UnreadableImageError: It is gone or cannot be decoded.
        """
        return self._loader.load(case)

    def saliency(self, case: Case, method: str, label: str) -> SaliencyMap:
        """Where the network looks in a case for a class; the likeliest one when ``label`` is empty.

        Raises:
            SettingsError: No method has this name.
            ExplanationError: The network has no such class or must not judge the image, or the method does
                not suit it.
            UnreadableImageError: The image is gone or cannot be decoded.
        """
        if label and label not in self.classes:
            raise ExplanationError(
                f"The network has no class {label!r}.", fix=f"Choose one of {', '.join(self.classes)}."
            )
        kept = self._maps.get((case.case_id, method, label))
        if kept is not None:
            return kept
        pixels = self._pixels(case)
        given = GivenImage(Path(case.title), case.sha256, pixels, "")
        with self.undisturbed():
            found = self._network.explain(given, pixels, method=method, label=label)
        for name in {label} if label else {"", found.target_name}:
            self._maps.keep((case.case_id, method, name), found)
        return found

    def neighbours(self, case: Case, count: int = 4) -> tuple[Neighbour, ...]:
        """The confirmed cases that are nearest to a case by the network's features, the nearest first.

        At most one of each patient or lesion, as far as they are known, and none of the case's own. Those
        whose features are not known yet come in later.

        Args:
            case: The case; nothing is near one that cannot be read or is refused.
            count: How many at most.
        """
        content = (case.sha256, case.frame)
        if content not in self._directions and not self._learn(case):
            return ()
        among = {
            Candidate((each.sha256, each.frame), self._group(each.sha256, each.patient)): each
            for each in self._store.confirmed()
        }
        nearest = self._directions.nearest(
            content, among, count, groups={self._group(case.sha256, case.patient)}
        )
        cases = {each: self._store.case(among[each].case_id) for each, _ in nearest}
        return tuple(
            Neighbour(found, among[each].label, similarity)
            for each, similarity in nearest
            if (found := cases[each]) is not None
        )

    def _step(self) -> bool:
        """One batch of what waits; whether there may be more."""
        waiting = self._store.waiting(_BATCH)
        if waiting:
            self._judge_all(waiting)
            return True
        if self._unlearnt is None:
            self._unlearnt = deque(
                each for each in self._store.confirmed() if (each.sha256, each.frame) not in self._directions
            )
        batch = [self._unlearnt.popleft() for _ in range(min(_BATCH, len(self._unlearnt)))]
        cases = [case for each in batch if (case := self._store.case(each.case_id)) is not None]
        if cases:
            self._judge_all(cases)
        else:
            self._directions.save()
        return bool(cases)

    def _judge_all(self, cases: Sequence[Case]) -> None:
        futures = [self._loaders.submit(self._load, case) for case in cases]
        loaded = [
            failed(future, case.title) if future.exception() else future.result()
            for case, future in zip(cases, futures, strict=True)
        ]
        self._keep(cases, self._network.judge(loaded))
        self._unsaved += 1
        if self._unsaved >= _BATCHES_BETWEEN_SAVES:
            self._unsaved = 0
            self._directions.save()

    def _load(self, case: Case) -> Ready | Prediction:
        try:
            return self._predictor.prepare(self.image(case), case.title)
        except UnreadableImageError as error:
            return Prediction(case.title, problem=error.reason)

    def _judge(self, case: Case, given: GivenImage) -> Found:
        """Judge one case ahead of all that wait."""
        with self.undisturbed():
            (found,) = self._network.judge([self._predictor.prepare(given, case.title)], maps=True)
            self._keep([case], [found])
        if found.seen is not None:
            self._prepared.keep(case.case_id, found.seen.pixels)
            if found.seen.map is not None:
                for label in ("", found.seen.map.target_name):
                    self._maps.keep((case.case_id, RECOMMENDED, label), found.seen.map)
        return found

    def _keep(self, cases: Sequence[Case], found: Sequence[Found]) -> None:
        self._store.judge_all(
            {case.case_id: each.prediction for case, each in zip(cases, found, strict=True)}
        )
        seen = {
            (case.sha256, case.frame): each.seen.features
            for case, each in zip(cases, found, strict=True)
            if each.seen is not None and case.sha256
        }
        if seen:
            self._directions.add(list(seen), np.stack(list(seen.values())))

    def _learn(self, case: Case) -> bool:
        """Find out where a case lies; whether that could be done."""
        try:
            return self._judge(case, self.image(case)).seen is not None
        except UnreadableImageError:
            return False

    def _pixels(self, case: Case) -> npt.NDArray[np.uint8]:
        """The image as the network sees it, uint8 (S, S, channels)."""
        kept = self._prepared.get(case.case_id)
        if kept is not None:
            return kept
        found = self._judge(case, self.image(case))
        if found.seen is None:
            problem = found.prediction.problem
            if problem:
                raise UnreadableImageError(case.title, problem)
            raise ExplanationError(
                "There is no map of this image.", why="The network must not judge such an image."
            )
        return found.seen.pixels

    def _group(self, sha256: str, patient: str) -> str:
        return self._groups.get(sha256) or patient or sha256


def _digest(contract: Contract, fitted: Fitted) -> str:
    """What stands for all that a judgement depends on besides the image."""
    facts = fitted.bundle.facts.model_dump_json() if fitted.bundle else ""
    text = "\n".join((contract.weights_sha256, facts, fedlens.__version__))
    return hashlib.sha256(text.encode()).hexdigest()


def _joined(fitted: Fitted, found: StudyImages) -> str:
    return " ".join(filter(None, (fitted.note, found.note)))
