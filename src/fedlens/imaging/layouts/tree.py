"""One walk over a source folder: what may be an image, what is a table, what is neither."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fedlens.errors import DataError
from fedlens.imaging.formats import DICOM_SUFFIXES, IMAGE_SUFFIXES
from fedlens.imaging.import_report import ImportProblem

SPLIT_FOLDERS = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing"})

_TABLES = frozenset({".csv", ".tsv"})
_DOCUMENTS = {".txt", ".md", ".rst", ".pdf", ".html", ".htm", ".doc", ".docx", ".log", ".url"}
_DATA = {
    ".json",
    ".xml",
    ".yaml",
    ".yml",
    ".toml",
    ".ini",
    ".xls",
    ".xlsx",
    ".mat",
    ".npy",
    ".npz",
    ".parquet",
}
_CODE = {".py", ".ipynb", ".md5", ".sha1", ".sha256"}
_ARCHIVES = {".zip", ".gz", ".tar", ".7z", ".rar"}
_NO_IMAGES = _TABLES | _DOCUMENTS | _DATA | _CODE | _ARCHIVES


@dataclass(frozen=True)
class Tree:
    """The files under a folder, as sorted POSIX paths relative to it.

    Attributes:
        root: The folder, absolute.
        files: What may be an image: image extensions, and extensions that say nothing.
        tables: CSV and TSV files.
        ignored: Extension to count of everything else, tables and system clutter included.
    """

    root: Path
    files: tuple[str, ...]
    tables: tuple[str, ...]
    ignored: Counter[str]

    def inner(self) -> Tree | None:
        """The tree without a lone outer folder, or None where there is none to take off."""
        tops = {PurePosixPath(file).parts[0] for file in self.files}
        if len(tops) != 1 or any("/" not in file for file in self.files):
            return None
        top = tops.pop() + "/"
        return Tree(self.root / top, _below(top, self.files), _below(top, self.tables), self.ignored)

    def out_of_place(self, files: Iterable[str]) -> tuple[tuple[ImportProblem, ...], Counter[str]]:
        """Sort files at places where no image is expected.

        Returns:
            A problem for each file that is called an image, and the counted extensions of the others.
        """
        problems, others = [], Counter[str]()
        for file in files:
            if looks_like_image(file):
                problems.append(ImportProblem(str(self.root / file), "lies outside the class folders"))
            else:
                others[kind(file)] += 1
        return tuple(problems), others


def walk(root: Path) -> Tree:
    """List a folder, links followed once.

    Raises:
        DataError: A folder that may not be listed.
    """
    files, tables, ignored = [], [], Counter[str]()
    seen: set[str] = set()
    for folder, names, entries in os.walk(root, followlinks=True, onerror=_refuse):
        real = os.path.realpath(folder)
        if real in seen:
            names.clear()
            continue
        seen.add(real)
        names.sort()
        base = Path(folder).relative_to(root)
        clutter = any(part == "__MACOSX" or part.startswith(".") for part in base.parts)
        for entry in entries:
            if entry in (".DS_Store", "Thumbs.db", "desktop.ini"):
                ignored[entry] += 1
            elif clutter or entry.startswith("."):
                ignored["__MACOSX" if "__MACOSX" in base.parts else "hidden"] += 1
            elif (suffix := PurePosixPath(entry).suffix.lower()) in _NO_IMAGES:
                ignored[suffix] += 1
                if suffix in _TABLES:
                    tables.append((base / entry).as_posix())
            else:
                files.append((base / entry).as_posix())
    return Tree(root, tuple(sorted(files)), tuple(sorted(tables)), ignored)


def looks_like_image(file: str) -> bool:
    """Whether a file's name alone promises an image."""
    return PurePosixPath(file).suffix.lower() in IMAGE_SUFFIXES | DICOM_SUFFIXES


def kind(file: str) -> str:
    """A file's extension in lower case, for counting."""
    return PurePosixPath(file).suffix.lower() or "no extension"


def unused_masks(tree: Tree, masks: Iterable[str], used: Iterable[Path | None]) -> tuple[ImportProblem, ...]:
    """A problem for each mask that no image claimed."""
    taken = {mask for mask in used if mask is not None}
    return tuple(
        ImportProblem(str(tree.root / mask), "outline of an image that is not there")
        for mask in masks
        if tree.root / mask not in taken
    )


def _below(top: str, files: Iterable[str]) -> tuple[str, ...]:
    return tuple(file.removeprefix(top) for file in files if file.startswith(top))


def _refuse(error: OSError) -> None:
    raise DataError(
        f"Cannot list {error.filename}: {error.strerror}.",
        fix="Give read access to the folder, or leave it out.",
    ) from error
