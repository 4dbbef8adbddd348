"""Patient groups that the user knows better than the file names do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from fedlens.errors import SettingsError
from fedlens.imaging.import_report import ImportProblem
from fedlens.imaging.layouts.tables import read_table
from fedlens.imaging.manifest import ImageRecord


def read_groups(option: str) -> dict[Path, str]:
    """Read ``FILE.csv:PATHCOLUMN:GROUPCOLUMN``.

    Returns:
        Group by image, links resolved; paths in the table start from the table's folder.
        Rows with an empty group are left out.

    Raises:
        SettingsError: Not of that form, or a column that the table does not have.
        DataError: An unreadable table.
    """
    parts = option.rsplit(":", 2)
    if len(parts) != 3 or not all(parts):
        raise SettingsError(
            f"--groups {option!r} is not of the form FILE.csv:PATHCOLUMN:GROUPCOLUMN.",
            fix="For example: --groups index.csv:path:patient",
        )
    path, path_column, group_column = Path(parts[0]), parts[1].lower(), parts[2].lower()
    table = read_table(path)
    for column in (path_column, group_column):
        if column not in table.columns:
            raise SettingsError(
                f"--groups: {path} has no column {column!r}.", why=f"It has {', '.join(table.columns)}."
            )
    folder = path.resolve().parent
    rows = ((row[path_column], row[group_column]) for row in table.rows)
    return {(folder / image).resolve(): group for image, group in rows if image and group}


def apply_groups(
    records: Sequence[ImageRecord], origins: Iterable[Path], groups: dict[Path, str]
) -> tuple[list[ImageRecord], tuple[ImportProblem, ...]]:
    """Give records the groups of a table.

    Args:
        records: Rows of a manifest.
        origins: The original file of each row.
        groups: From ``read_groups``.

    Returns:
        The rows in the same order, and a problem for each row of the table that no image matched.
    """
    regrouped, used = [], set()
    for record, origin in zip(records, origins, strict=True):
        key = origin.resolve()
        if key in groups:
            used.add(key)
            record = replace(record, group=f"{record.source}:{groups[key]}")
        regrouped.append(record)
    unmatched = sorted(groups.keys() - used)
    return regrouped, tuple(
        ImportProblem(str(path), "has a group, but was not imported") for path in unmatched
    )
