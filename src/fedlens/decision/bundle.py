"""What advice needs beside a checkpoint, kept in the checkpoint's folder.

``decision.json`` says what was fitted and for which weights; ``decision.safetensors`` holds feature
statistics and histograms. The arrays are written first, and JSON with their digest follows, so a writer
killed between the two leaves files that are refused. Histograms are kept whole: coverage, score and
referral can be chosen anew without any image.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from fedlens.decision.calibration import fit_temperature
from fedlens.decision.modality import KnownModalities
from fedlens.decision.rules import Rules
from fedlens.decision.settings import DecisionSettings
from fedlens.decision.totals import BasisTotals, ScoreTotals
from fedlens.decision.unlike import FeatureStatistics
from fedlens.errors import CheckpointError, DataError
from fedlens.files import write_bytes, write_text
from fedlens.settings import Settings

FACTS_NAME = "decision.json"
ARRAYS_NAME = "decision.safetensors"
BUNDLE_NAMES = (ARRAYS_NAME, FACTS_NAME)
"""Both files in the order in which they are written."""

_SCORES = "scores."
_FIX = "Fit it again: remove decision.json and call fedlens predict where the study's images are."


class DecisionFacts(Settings):
    """Content of ``decision.json``.

    Attributes:
        weights_sha256: Digest of the weights that all this belongs to.
        classes: Class names in the order of the outputs.
        temperature: Divides logits.
        training_images: Images that features were learnt from, by modality.
        least_colour: By modality, what all but a few training images are as coloured as, 0..255.
        validation_images: Images that scores were counted on.
        hospitals: That took part; names are not needed for anything.
        settings: As fitted; what they say of coverage and referral may be chosen anew.
        arrays_sha256: Digest of the arrays' file.
        version: Of FedLens.
        format: Version of both files' layout.
    """

    weights_sha256: str
    classes: tuple[str, ...] = Field(min_length=2)
    temperature: float = Field(gt=0)
    training_images: dict[str, int]
    least_colour: dict[str, float]
    validation_images: int = Field(ge=1)
    hospitals: int = Field(ge=1)
    settings: DecisionSettings
    arrays_sha256: str = ""
    version: str = ""
    format: Literal[1] = 1


@dataclass(frozen=True, eq=False)
class Basis:
    """What the first step's sums give, and the second step needs.

    Attributes:
        temperature: Divides logits.
        statistics: Of training images' features.
        known: Kinds of images that were learnt from.
    """

    temperature: float
    statistics: FeatureStatistics
    known: KnownModalities

    @classmethod
    def fit(cls, totals: BasisTotals, settings: DecisionSettings) -> Basis:
        """From sums over hospitals.

        Raises:
            DataError: No validation images, or fewer than two training images.
        """
        return cls(
            fit_temperature(totals.losses),
            FeatureStatistics.fit(totals.features, shrinkage=settings.shrinkage),
            KnownModalities.fit(totals.colours),
        )


@dataclass(frozen=True, eq=False)
class DecisionBundle:
    """Fitted advice of one network."""

    facts: DecisionFacts
    statistics: FeatureStatistics
    scores: ScoreTotals

    @classmethod
    def of(
        cls,
        basis: Basis,
        scores: ScoreTotals,
        *,
        classes: tuple[str, ...],
        weights_sha256: str,
        hospitals: int,
        settings: DecisionSettings,
    ) -> DecisionBundle:
        """Both steps together."""
        facts = DecisionFacts(
            weights_sha256=weights_sha256,
            classes=classes,
            temperature=basis.temperature,
            training_images=basis.known.images,
            least_colour=basis.known.least_colour,
            validation_images=int(scores.distances.sum()),
            hospitals=hospitals,
            settings=settings,
            version=metadata.version("fedlens"),
        )
        return cls(facts, basis.statistics, scores)

    @property
    def known(self) -> KnownModalities:
        """Kinds of images that the network learnt from."""
        return KnownModalities(self.facts.training_images, self.facts.least_colour)

    def rules(self, settings: DecisionSettings | None = None) -> Rules:
        """Thresholds under some settings; those it was fitted with by default."""
        facts = self.facts
        return Rules.fit(
            facts.classes, settings or facts.settings, facts.temperature, self.statistics, self.scores
        )

    def save(self, folder: Path) -> None:
        """Write both files, each whole or not at all."""
        arrays: dict[str, npt.NDArray[Any]] = dict(self.statistics.numbers())
        arrays |= {f"{_SCORES}{name}": array for name, array in self.scores.numbers().items()}
        content = safetensors_numpy.save({name: np.ascontiguousarray(each) for name, each in arrays.items()})
        facts = self.facts.model_copy(update={"arrays_sha256": hashlib.sha256(content).hexdigest()})
        write_bytes(folder / ARRAYS_NAME, content)
        write_text(folder / FACTS_NAME, facts.model_dump_json(indent=2) + "\n")


class Signed(Protocol):
    """What a contract says of its weights."""

    @property
    def weights_sha256(self) -> str:
        """Digest of the weights' file."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of the outputs."""
        ...


def has_bundle(folder: Path) -> bool:
    """Whether advice was fitted for a checkpoint."""
    return (folder / FACTS_NAME).is_file()


def kept_bundle(folder: Path, contract: Signed) -> DecisionBundle | None:
    """Advice that was fitted for a checkpoint, from its folder and contract; None where none was.

    Raises:
        CheckpointError: What is kept is torn, or was fitted for other weights or classes.
    """
    if not has_bundle(folder):
        return None
    return load_bundle(folder, weights_sha256=contract.weights_sha256, classes=contract.classes)


def load_bundle(folder: Path, *, weights_sha256: str, classes: tuple[str, ...]) -> DecisionBundle:
    """Read what :meth:`DecisionBundle.save` wrote.

    Args:
        folder: The checkpoint's.
        weights_sha256: Digest of the checkpoint's weights, from its contract.
        classes: Names in the order of the outputs, from its contract.

    Raises:
        CheckpointError: Missing or torn, or fitted for other weights or classes.
    """
    try:
        facts = DecisionFacts.model_validate_json((folder / FACTS_NAME).read_bytes())
        content = (folder / ARRAYS_NAME).read_bytes()
        if hashlib.sha256(content).hexdigest() != facts.arrays_sha256:
            raise DataError("its arrays are not those that it was written with")
        arrays = safetensors_numpy.load(content)
        scores = {name: arrays.pop(name) for name in list(arrays) if name.startswith(_SCORES)}
        bundle = DecisionBundle(
            facts,
            FeatureStatistics.from_numbers(arrays),
            ScoreTotals.from_numbers({name.removeprefix(_SCORES): each for name, each in scores.items()}),
        )
    except (OSError, ValidationError, SafetensorError, KeyError, TypeError, DataError) as error:
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(f"Cannot read the advice of {folder}: {first}.", fix=_FIX) from error
    if (facts.weights_sha256, facts.classes) != (weights_sha256, classes):
        raise CheckpointError(
            f"The advice of {folder} was fitted for another network.",
            why=f"For weights {facts.weights_sha256[:12]}, and these are {weights_sha256[:12]}.",
            fix=_FIX,
        )
    return bundle
