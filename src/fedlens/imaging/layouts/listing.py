"""What a layout hands to the importer: images found, not yet opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedlens.imaging.import_report import ImportProblem
from fedlens.imaging.layouts.tree import Tree


@dataclass(frozen=True, slots=True)
class FoundImage:
    """One image that a layout found, with what the layout knows about it.

    Attributes:
        path: The file, absolute.
        name: Path inside the source, unique there; ``#n`` for image ``n`` of an array file.
        label: Diagnostic class as the source names it.
        patient: Patient or lesion key as the source names it; empty where unknown.
        mask: Expert outline, absolute.
        pixels: uint8 (H, W) or (H, W, 3) for images that are no files of their own.
        modality: Overrides the listing's.
        age: Years.
        sex: ``male``, ``female`` or empty.
        site: Where it was taken.
        subtype: A finer label.
    """

    path: Path
    name: str
    label: str
    patient: str = ""
    mask: Path | None = None
    pixels: npt.NDArray[np.uint8] | None = None
    modality: str = ""
    age: float | None = None
    sex: str = ""
    site: str = ""
    subtype: str = ""


@dataclass(frozen=True)
class Listing:
    """All that a layout found in one source.

    Attributes:
        layout: Name of the layout.
        images: The images, in a fixed order; may be read lazily, once.
        total: Number of ``images``.
        source: Default name of the source; the folder's own name when empty.
        modality: Of images that say nothing else; empty where only the file can tell.
        problems: Files already known to be unusable or out of place.
        ignored: Extension to count of files that are no images.
        notes: Remarks on the source as a whole.
    """

    layout: str
    images: Iterable[FoundImage]
    total: int
    source: str = ""
    modality: str = ""
    problems: tuple[ImportProblem, ...] = ()
    ignored: Counter[str] = field(default_factory=Counter)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """One way in which image folders come.

    Attributes:
        name: Name in reports.
        looks_like: What the layout looks for, for people.
        find: Lists a folder's images, or None where the folder is laid out otherwise.
    """

    name: str
    looks_like: str
    find: Callable[[Tree], Listing | None]


@dataclass(frozen=True)
class FileLayout:
    """One kind of single file that holds or lists images.

    Attributes:
        name: Name in reports.
        looks_like: What the layout looks for, for people.
        suffixes: Extensions that belong to it, lower case.
        find: Lists the file's images.
    """

    name: str
    looks_like: str
    suffixes: frozenset[str]
    find: Callable[[Path], Listing]
