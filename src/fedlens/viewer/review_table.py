"""Reviews as a table that spreadsheets open without running any of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

_COLUMNS = (
    "case_id",
    "title",
    "patient",
    "likeliest",
    "probability",
    "advice",
    "label",
    "reviewer",
    "verdict",
    "note",
    "time",
)
_RUNS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a cell begins with that spreadsheets take for a formula."""


def review_table(rows: Iterable[Sequence[object]]) -> str:
    """CSV with a line of names.

    Args:
        rows: Values in the order of the columns; probabilities are floats, or None.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return stream.getvalue()


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6f}"
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_RUNS) else text
