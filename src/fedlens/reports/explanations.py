"""How good a trained network's explanations of held-out images are, image by image, kept as Parquet.

The file stands beside the arm's predictions, with the same images in the same order.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fedlens.errors import DataError, HistoryError
from fedlens.reports.image_rows import TEXT_COLUMNS, read_rows, save_rows

EXPLANATIONS_NAME = "explanations.parquet"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ExplanationValues:
    """What was measured on one arm's maps of N images; every array is in the same order.

    Attributes:
        image_ids: (N,) as in the manifest.
        hospitals: (N,) the hospital that holds each image.
        sources: (N,) data set of each image.
        groups: (N,) patient, lesion or cluster, for intervals.
        true: (N,) int64 index of the true class.
        columns: float64 (N,) by column of :data:`fedlens.metrics.explanation.COLUMNS`; NaN where undefined.
        method: How the maps were made.
        weights: By hospital the SHA-256 of the weights that were explained on its images.
    """

    image_ids: npt.NDArray[np.str_]
    hospitals: npt.NDArray[np.str_]
    sources: npt.NDArray[np.str_]
    groups: npt.NDArray[np.str_]
    true: npt.NDArray[np.int64]
    columns: Mapping[str, Floats]
    method: str
    weights: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = {name: getattr(self, name) for name in TEXT_COLUMNS.values()} | dict(self.columns)
        for name, part in parts.items():
            if part.shape != self.true.shape:
                raise DataError(f"There are {len(part)} values of {name} for {len(self.true)} images.")

    def __len__(self) -> int:
        return len(self.true)

    def take(self, rows: npt.NDArray[np.intp]) -> ExplanationValues:
        """Some images, in the order of ``rows``."""
        parts = {part: getattr(self, part)[rows] for part in (*TEXT_COLUMNS.values(), "true")}
        columns = {name: values[rows] for name, values in self.columns.items()}
        return dataclasses.replace(self, **parts, columns=columns)

    def save(self, path: Path) -> None:
        """Write a Parquet file whole or not at all."""
        said = {"method": self.method, "weights": json.dumps(dict(self.weights), sort_keys=True)}
        save_rows(path, self, {name: pa.array(values) for name, values in self.columns.items()}, said)


def load_explanations(path: Path) -> ExplanationValues:
    """Read what :meth:`ExplanationValues.save` wrote.

    Raises:
        HistoryError: Missing, torn, or not such a file; names it.
    """
    if not path.is_file():
        raise HistoryError(f"No {path.name} in {path.parent}.", fix="Make it with: fedlens report FOLDER")
    try:
        table = pq.read_table(path)
        said: Mapping[bytes, bytes] = table.schema.metadata or {}
        names = [name for name in table.column_names if name not in (*TEXT_COLUMNS, "true")]
        return ExplanationValues(
            **read_rows(table),
            columns={name: table[name].to_numpy().astype(np.float64) for name in names},
            method=said[b"method"].decode(),
            weights=json.loads(said[b"weights"]),
        )
    except (pa.ArrowException, OSError, KeyError, ValueError, DataError) as error:
        raise HistoryError(
            f"Cannot read {path}: {error}.", fix="Remove the file and run: fedlens report FOLDER"
        ) from error
