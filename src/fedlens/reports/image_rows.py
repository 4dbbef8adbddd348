"""Columns that say whose image a row is, as every Parquet file about held-out images has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fedlens.files import whole_file

TEXT_COLUMNS = {"image_id": "image_ids", "hospital": "hospitals", "source": "sources", "group": "groups"}
"""Attribute of the rows' owner by column."""


def save_rows(path: Path, owner: Any, columns: Mapping[str, pa.Array], said: Mapping[str, str]) -> None:
    """Write a Parquet file whole or not at all.

    Args:
        path: The file.
        owner: Has the attributes of ``TEXT_COLUMNS``, str (N,), and ``true``, int64 (N,).
        columns: Further ones, N long.
        said: Kept beside the table.
    """
    common: dict[str, Any] = {
        name: pa.array(getattr(owner, part).tolist(), pa.string()) for name, part in TEXT_COLUMNS.items()
    }
    common["true"] = pa.array(owner.true.astype(np.int32))
    table = pa.table(common | dict(columns)).replace_schema_metadata(dict(said))
    with whole_file(path) as part:
        pq.write_table(table, part, compression="zstd")


def read_rows(table: pa.Table) -> dict[str, npt.NDArray[Any]]:
    """The attributes that :func:`save_rows` wrote for every owner, by name.

    Raises:
        KeyError: A column is missing.
    """
    text = {part: np.array(table[name].to_pylist(), np.str_) for name, part in TEXT_COLUMNS.items()}
    return text | {"true": table["true"].to_numpy().astype(np.int64)}
