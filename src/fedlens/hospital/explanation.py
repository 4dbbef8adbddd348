"""A hospital's explanations: made, measured and judged at home; only sums over its images leave.

What is kept stands in :mod:`fedlens.home_explanations`; beside it lies ``explanation.bin``, the hospital's
own sums of the last measurement, to be held against the federation's.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedlens.errors import BadUpdateError, ExplanationError, RoundError, SettingsError
from fedlens.explain.batch import evaluating
from fedlens.explain.methods import find_method
from fedlens.explain.quality.measuring import COMPARED, EXAMINED, QUICK
from fedlens.explain.straying import (
    Straying,
    StrayingClass,
    StrayReason,
    cell_of,
    reasons_in_words,
    stray_reasons,
    straying_classes,
    strays_by_itself,
)
from fedlens.files import write_bytes, write_json, write_text
from fedlens.home_explanations import HOME_EXPLANATIONS_NAME, STRAYING_NAME, read_home
from fedlens.hospital.images import Rows
from fedlens.hospital.map_measures import BATCH, MapMeasures
from fedlens.hospital.regions import ImageRegions
from fedlens.metrics.explanation import EXPLAINED
from fedlens.metrics.explanation_totals import QualityTotals, figures
from fedlens.models.network import Network
from fedlens.progress import Progress
from fedlens.protocol.codec import decode, encode
from fedlens.protocol.encoding import MOST_HOSPITALS
from fedlens.protocol.messages import ExplainRequest, Explanation, ExplanationTotals, Noted
from fedlens.study import ExplanationSettings

_OWN_NAME = "explanation.bin"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class StrayedImage:
    """One image whose map strays: its id in the manifest, its class, and where the heat lies instead."""

    image_id: str
    label: str
    reasons: tuple[StrayReason, ...]


@dataclass(frozen=True)
class LocalExplanation:
    """What one measurement came to.

    Attributes:
        message: Sums and counts by true class, which may leave.
        totals: The same.
        strayed: Images whose maps stray; they stay.
        unreadable: Ids of images whose outline could not be read; they stay too.
    """

    message: Explanation
    totals: QualityTotals
    strayed: tuple[StrayedImage, ...] = field(repr=False)
    unreadable: tuple[str, ...] = field(repr=False)


class Explanations:
    """Measures the maps of one hospital's held-out images, and keeps what belongs at home.

    Args:
        hospital: Its name.
        settings: Of the study.
        held_out: Of the split that is explained.
        training: Of the training images; their damaged outlines are noted too.
        classes: Names in the order of the network's outputs.
        folder: The hospital's own.
        progress: Told after every batch; what it raises ends the measurement.
    """

    def __init__(
        self,
        hospital: str,
        settings: ExplanationSettings,
        held_out: ImageRegions,
        training: ImageRegions,
        classes: Sequence[str],
        folder: Path,
        progress: Progress,
    ) -> None:
        self._hospital = hospital
        self._settings = settings
        self._images = held_out.images
        self._regions = (held_out, training)
        names = (*EXAMINED, *COMPARED) if settings.measures == "full" else QUICK
        self._measures = MapMeasures(held_out, settings.method, names)
        self._classes = tuple(classes)
        self._folder = folder
        self._progress = progress

    def check_method(self, network: Network) -> None:
        """Refuse a study whose maps cannot be made, before anybody trains.

        Raises:
            SettingsError: ``explanation.method`` is unknown, or does not suit the network.
        """
        name = self._settings.method
        try:
            find_method(name).check(network)
        except ExplanationError as error:
            raise SettingsError(
                f"explanation.method = {name!r} does not suit model.name = {network.name!r}.",
                why=error.why,
                fix=error.fix,
            ) from error

    def answer(self, request: ExplainRequest, network: Network) -> LocalExplanation:
        """Explain every image for the class that the network predicts, measure its map, and keep what stays.

        Args:
            request: Of the coordinator; its weights are in ``network`` already.
            network: Its mode is the same afterwards.

        Raises:
            BadUpdateError: The study measures no maps.
            ExplanationError: The network's outputs are not finite.
        """
        if self._settings.measures == "none":
            raise BadUpdateError(
                f"Hospital {self._hospital} explains nothing in this study.",
                why="Its study file says explanation.measures = 'none'.",
                fix="Give every member the same study file.",
            )
        measured = self._measured(request, network)
        self._keep(measured)
        return measured

    def note(self, told: ExplanationTotals) -> Noted:
        """Hold this hospital's own figures of a round against the federation's, and write both.

        Raises:
            RoundError: Totals of a round that this hospital did not measure last.
            BadUpdateError: Totals of another shape, impossible ones, or ones that its own are not in.
        """
        own = self._own(told)
        numbers = own.numbers()
        fits = told.totals.keys() == numbers.keys() and all(
            array.dtype == np.int64 and array.shape == numbers[name].shape
            for name, array in told.totals.items()
        )
        everyone = QualityTotals.from_numbers(told.totals) if fits else own
        others = everyone - own
        if not fits or not others.possible(MOST_HOSPITALS):
            raise BadUpdateError(
                f"Hospital {self._hospital} refuses totals of round {told.round}.",
                why="Less its own they are no other hospitals' totals.",
            )
        said = {
            "federation": figures(everyone, self._classes),
            "federation_images": int(everyone.column(EXPLAINED)[1].sum()),
            "straying": [self._said(found) for found in strays_by_itself(self._hospital, own, others)],
            "straying_classes": [self._said(found) for found in straying_classes(everyone)],
        }
        self._write([entry | said if entry["round"] == told.round else entry for entry in self._kept()])
        return Noted(self._hospital, told.study, told.round)

    def _said(self, found: Straying | StrayingClass) -> dict[str, Any]:
        """A finding for people: classes by name."""
        said = dataclasses.asdict(found)
        said.pop("hospital", None)
        for key in said.keys() & {"label", "nearest"}:
            said[key] = self._classes[said[key]]
        return {**said, "sentence": found.sentence(self._classes)}

    def _measured(self, request: ExplainRequest, network: Network) -> LocalExplanation:
        began = time.perf_counter()
        totals = QualityTotals.zero(network.classes)
        strayed: list[StrayedImage] = []
        count = len(self._images)
        with evaluating(network):
            cell = cell_of(network)
            for start in range(0, count, BATCH):
                rows = np.arange(start, min(start + BATCH, count))
                values = self._measures.values(network, rows, cell)
                totals += QualityTotals.of(values, self._images.labels[rows], network.classes)
                strayed += self._strayed(rows, values)
                self._progress("explanation", int(rows[-1]) + 1, count)
        message = Explanation(
            hospital=self._hospital,
            study=request.study,
            round=request.round,
            fingerprint=request.fingerprint,
            split=request.split,
            seconds=time.perf_counter() - began,
            counts=totals.numbers(),
        )
        damaged = set().union(*(regions.damaged for regions in self._regions))
        return LocalExplanation(message, totals, tuple(strayed), tuple(sorted(damaged)))

    def _keep(self, measured: LocalExplanation) -> None:
        """Write a round's own figures, before any of them leaves."""
        number = measured.message.round
        # Of the same mode as moments of training: these sums are of this hospital alone.
        write_bytes(self._folder / _OWN_NAME, encode(measured.message), mode=0o600)
        write_text(self._folder / STRAYING_NAME, _straying_table(measured.strayed, number))
        # A round that is repeated, and whatever came after it, is no more.
        earlier = [entry for entry in self._kept() if entry["round"] < number]
        own = {
            "round": number,
            "images": len(self._images),
            "own": figures(measured.totals, self._classes),
            "federation": None,
            "federation_images": None,
            "straying": None,
            "straying_classes": None,
            "unreadable_outlines": list(measured.unreadable),
        }
        self._write([*earlier, own])

    def _strayed(self, rows: Rows, values: dict[str, Floats]) -> list[StrayedImage]:
        if "strays" not in values:
            return []
        return [
            StrayedImage(
                self._images.records[row].image_id,
                self._classes[self._images.labels[row]],
                tuple(stray_reasons(values, place)),
            )
            for place, row in enumerate(rows)
            if values["strays"][place]
        ]

    def _own(self, told: ExplanationTotals) -> QualityTotals:
        path = self._folder / _OWN_NAME
        own = decode(path.read_bytes(), Explanation) if path.is_file() else None
        if own is None or (own.study, own.round) != (told.study, told.round):
            raise RoundError(
                f"Hospital {self._hospital} refuses totals of round {told.round}.",
                why="They are of no measurement that it took part in last.",
            )
        return QualityTotals.from_numbers(own.counts)

    def _kept(self) -> list[dict[str, Any]]:
        home = read_home(self._folder)
        rounds: list[dict[str, Any]] = home["rounds"] if home else []
        return rounds

    def _write(self, rounds: list[dict[str, Any]]) -> None:
        content = {
            "hospital": self._hospital,
            "method": self._settings.method,
            "measures": self._settings.measures,
            "classes": list(self._classes),
            "rounds": rounds,
        }
        write_json(self._folder / HOME_EXPLANATIONS_NAME, content)


def _straying_table(strayed: Sequence[StrayedImage], number: int) -> str:
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(("image_id", "class", "region", "share_of_heat", "share_of_image", "round", "why"))
    for image in strayed:
        for reason in image.reasons:
            shares = (f"{reason.heat:.4f}", f"{reason.image:.4f}")
            why = reasons_in_words([reason])
            table.writerow((image.image_id, image.label, reason.region, *shares, number, why))
    return stream.getvalue()
