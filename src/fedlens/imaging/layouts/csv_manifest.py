"""A CSV manifest: one row for each image, paths relative to the table's folder."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from fedlens.errors import LayoutError
from fedlens.imaging.import_report import ImportProblem
from fedlens.imaging.layouts.listing import FileLayout, FoundImage, Layout, Listing
from fedlens.imaging.layouts.tables import Table, header_of, read_table, sex, years
from fedlens.imaging.layouts.tree import Tree, kind, looks_like_image

MODALITIES = ("xray", "mri", "dermoscopy", "ct", "other")

_PATHS = ("path", "file", "filename")
_GROUPS = ("group", "patient", "patient_id")
_OPTIONAL = ("mask", "age", "sex", "site", "modality", "subtype")
_LOOKS_LIKE = (
    "a CSV with columns path and label; group (or patient, patient_id), "
    "mask, age, sex, site, modality and subtype optional"
)


def find_file(path: Path) -> Listing:
    """The images that a table lists.

    Raises:
        LayoutError: The table has no ``path`` or no ``label`` column.
    """
    table = read_table(path)
    if not _is_manifest(table.columns):
        raise LayoutError(
            f"{path} has the columns {', '.join(table.columns)}.",
            why="A CSV manifest needs the columns path and label.",
            fix="Rename its columns, or add the missing one.",
        )
    rows = _Rows(table)
    for number, row in enumerate(table.rows, start=2):
        rows.add(number, row)
    unknown = [name for name in table.columns if name not in {*_PATHS, *_GROUPS, *_OPTIONAL, "label"}]
    return Listing(
        layout=FILE_LAYOUT.name,
        images=rows.images,
        total=len(rows.images),
        modality="",
        problems=tuple(rows.problems),
        ignored=Counter(),
        notes=(f"columns that mean nothing here: {', '.join(unknown)}",) if unknown else (),
    )


def find(tree: Tree) -> Listing | None:
    """A folder with one such table at its top; images that it does not list are named."""
    tables = [name for name in tree.tables if "/" not in name and _is_manifest(header_of(tree.root / name))]
    if len(tables) != 1:
        return None
    listing = find_file(tree.root / tables[0])
    listed = {image.path for image in listing.images} | {image.mask for image in listing.images}
    named = {problem.file for problem in listing.problems}
    problems, ignored = list(listing.problems), tree.ignored.copy()
    for file in tree.files:
        path = tree.root / file
        if path in listed or str(path) in named:
            continue
        if looks_like_image(file):
            problems.append(ImportProblem(str(path), f"is not listed in {tables[0]}"))
        else:
            ignored[kind(file)] += 1
    return Listing(
        layout=listing.layout,
        images=listing.images,
        total=listing.total,
        problems=tuple(problems),
        ignored=ignored,
        notes=listing.notes,
    )


@dataclass
class _Rows:
    """Rows of one table, sorted into images and problems."""

    table: Table
    images: list[FoundImage] = field(default_factory=list)
    problems: list[ImportProblem] = field(default_factory=list)
    seen: set[Path] = field(default_factory=set)

    def add(self, number: int, row: dict[str, str]) -> None:
        """Take one row; ``number`` is its line in the file."""
        folder, place = self.table.path.parent, f"row {number} of {self.table.path.name}"
        given = _first(row, _PATHS)
        path = _beside(folder, given)
        reason = ""
        if not given:
            path, reason = self.table.path, f"{place} has no path"
        elif not row["label"]:
            reason = f"has no label in {place}"
        elif path in self.seen:
            reason = f"is listed again in {place}"
        elif not path.is_file():
            reason = f"is listed in {place}, but there is no such file"
        if reason:
            self.problems.append(ImportProblem(str(path), reason))
            return
        self.seen.add(path)
        self.images.append(self._found(path, row, place))

    def _found(self, path: Path, row: dict[str, str], place: str) -> FoundImage:
        folder = self.table.path.parent
        inside = path.is_relative_to(folder)
        modality = row.get("modality", "").lower()
        self._check(path, modality in ("", *MODALITIES), f"unknown modality {modality!r} in {place}")
        age = years(row.get("age", ""))
        self._check(
            path, age is not None or not row.get("age"), f"age {row.get('age')!r} in {place} left out"
        )
        return FoundImage(
            path=path,
            name=(path.relative_to(folder) if inside else path.relative_to(path.anchor)).as_posix(),
            label=row["label"],
            patient=_first(row, _GROUPS),
            mask=_beside(folder, row["mask"]) if row.get("mask") else None,
            modality=modality if modality in MODALITIES else "other" if modality else "",
            age=age,
            sex=sex(row.get("sex", "")),
            site=row.get("site", ""),
            subtype=row.get("subtype", ""),
        )

    def _check(self, path: Path, good: bool, reason: str) -> None:
        if not good:
            self.problems.append(ImportProblem(str(path), reason, "handled"))


def _is_manifest(columns: tuple[str, ...]) -> bool:
    return "label" in columns and any(name in columns for name in _PATHS)


def _beside(folder: Path, given: str) -> Path:
    return Path(os.path.normpath(folder / given))


def _first(row: dict[str, str], names: tuple[str, ...]) -> str:
    return next((row[name] for name in names if row.get(name)), "")


LAYOUT = Layout("CSV manifest", _LOOKS_LIKE, find)
FILE_LAYOUT = FileLayout("CSV manifest", _LOOKS_LIKE, frozenset({".csv", ".tsv"}), find_file)
