"""Reading the CSV tables that come with images."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from fedlens.errors import DataError

_DELIMITERS = ",;\t"


@dataclass(frozen=True)
class Table:
    """A table with a header.

    Attributes:
        path: The file.
        columns: Header, lower case, stripped.
        rows: One dictionary for each row; a short row has empty values.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]


def read_table(path: Path) -> Table:
    """Read a table separated by comma, semicolon or tab.

    Raises:
        DataError: Unreadable, not UTF-8, or without a header.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Cannot read the table {path}: {error}.", fix="Save it as CSV in UTF-8.") from error
    header = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=header.count)
    lines = list(csv.reader(text.splitlines(), delimiter=delimiter))
    if not lines or not any(lines[0]):
        raise DataError(f"The table {path} is empty.", fix="Give it a header line and rows.")
    columns = tuple(column.strip().lower() for column in lines[0])
    rows = tuple(
        dict(zip(columns, [*(value.strip() for value in line), *[""] * len(columns)], strict=False))
        for line in lines[1:]
        if any(line)
    )
    return Table(path, columns, rows)


def header_of(path: Path) -> tuple[str, ...]:
    """The lower-case header of a table, or nothing where it cannot be read."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            header = stream.readline()
    except (OSError, UnicodeDecodeError):
        return ()
    delimiter = max(_DELIMITERS, key=header.count)
    return tuple(column.strip().strip('"').lower() for column in header.strip().split(delimiter))


def years(text: str) -> float | None:
    """An age in years, or None where the text is no number of 0 to 130."""
    try:
        age = float(text)
    except ValueError:
        return None
    return age if 0 <= age <= 130 else None


def sex(text: str) -> str:
    """``male``, ``female`` or empty."""
    return {"m": "male", "male": "male", "f": "female", "female": "female"}.get(text.lower(), "")
