"""What a trained network said about each held-out image, kept as Parquet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fedlens.errors import DataError, HistoryError
from fedlens.reports.image_rows import TEXT_COLUMNS, read_rows, save_rows

PREDICTIONS_NAME = "predictions.parquet"


@dataclass(frozen=True, eq=False)
class Predictions:
    """One network's probabilities for N images; every array is in the same order.

    Attributes:
        image_ids: (N,) as in the manifest.
        hospitals: (N,) the hospital that holds each image, whoever trained the network.
        sources: (N,) data set of each image.
        groups: (N,) patient, lesion or cluster, for intervals.
        true: (N,) int64 index of the true class.
        probabilities: (N, C) float32.
        classes: The C class names, in the order of the network's outputs.
    """

    image_ids: npt.NDArray[np.str_]
    hospitals: npt.NDArray[np.str_]
    sources: npt.NDArray[np.str_]
    groups: npt.NDArray[np.str_]
    true: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        images = len(self.true)
        for column in TEXT_COLUMNS.values():
            if len(getattr(self, column)) != images:
                raise DataError(
                    f"Predictions have {len(getattr(self, column))} {column} for {images} images."
                )
        if self.probabilities.shape != (images, len(self.classes)):
            raise DataError(
                f"Predictions have probabilities of shape {self.probabilities.shape}.",
                why=f"Expected ({images}, {len(self.classes)}).",
            )
        if images and not (self.true.min() >= 0 and self.true.max() < len(self.classes)):
            raise DataError(f"A true class lies outside the {len(self.classes)} classes of the network.")

    def __len__(self) -> int:
        return len(self.true)

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """(N,) index of the most probable class."""
        return np.asarray(self.probabilities.argmax(1), np.int64)

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """(N,) whether the most probable class is the true one."""
        return np.asarray(self.predicted == self.true, np.bool_)

    def take(self, rows: npt.NDArray[np.intp]) -> Predictions:
        """Some images, in the order of ``rows``."""
        return Predictions(
            self.image_ids[rows],
            self.hospitals[rows],
            self.sources[rows],
            self.groups[rows],
            self.true[rows],
            self.probabilities[rows],
            self.classes,
        )

    def where(self, keep: npt.NDArray[np.bool_]) -> Predictions:
        """The images that ``keep``, (N,), accepts."""
        return self.take(np.flatnonzero(keep))

    def of_hospital(self, hospital: str) -> Predictions:
        """The images that one hospital holds."""
        return self.where(self.hospitals == hospital)

    def of_source(self, source: str) -> Predictions:
        """The images of one data set."""
        return self.where(self.sources == source)

    def save(self, path: Path) -> None:
        """Write a Parquet file whole or not at all."""
        flat = pa.array(np.ascontiguousarray(self.probabilities, np.float32).ravel())
        columns = {"probabilities": pa.FixedSizeListArray.from_arrays(flat, len(self.classes))}
        save_rows(path, self, columns, {"classes": json.dumps(self.classes)})


def load_predictions(path: Path) -> Predictions:
    """Read what :meth:`Predictions.save` wrote.

    Raises:
        HistoryError: Missing, torn, or not a predictions file; names it.
    """
    if not path.is_file():
        raise HistoryError(f"No {path.name} in {path.parent}.", fix="Run the comparison or study again.")
    try:
        table = pq.read_table(path)
        metadata: Mapping[bytes, bytes] = table.schema.metadata or {}
        classes = tuple(json.loads(metadata[b"classes"]))
        flat = table["probabilities"].combine_chunks().flatten().to_numpy()
        return Predictions(
            **read_rows(table),
            probabilities=flat.reshape(-1, len(classes)).astype(np.float32),
            classes=classes,
        )
    except (pa.ArrowException, OSError, KeyError, ValueError, DataError) as error:
        raise HistoryError(
            f"Cannot read predictions {path}: {error}.", fix="Run that arm again; the file is not whole."
        ) from error
