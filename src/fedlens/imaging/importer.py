"""``fedlens data import``: from folders as people download them to one manifest.

A study folder appears whole or not at all: everything is written beside it and renamed last.
"""

from __future__ import annotations

import os
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from fedlens.errors import DataError, SettingsError
from fedlens.files import write_json
from fedlens.imaging.groups import apply_groups, read_groups
from fedlens.imaging.import_report import ImportProblem, ImportReport
from fedlens.imaging.inspection import Inspected, Inspector
from fedlens.imaging.layouts import FoundImage, Listing, recognise
from fedlens.imaging.manifest import MANIFEST_NAME, ImageRecord, Manifest
from fedlens.imaging.pseudonyms import SECRET_NAME, LatePseudonyms
from fedlens.imaging.staging import staged_folder
from fedlens.imaging.store import STORE_NAME, Store
from fedlens.imaging.trial import DecoderTrial
from fedlens.progress import Progress, silent

__all__ = ["REPORT_NAME", "ImportProblem", "ImportReport", "import_images"]

REPORT_NAME = "import.json"

_OWN = frozenset({MANIFEST_NAME, REPORT_NAME, STORE_NAME, "audit.json", "audit.txt"})
_QUEUED = 64


def import_images(
    sources: Sequence[Path],
    out: Path,
    *,
    copy: bool = False,
    deidentify: bool = False,
    name: str = "",
    groups: str = "",
    overwrite: bool = False,
    progress: Progress = silent,
) -> ImportReport:
    """Import image folders, CSV manifests and MedMNIST files into one study folder.

    Every file that looks like an image, or lies where images are expected, is either imported or
    named in the report with the reason. Originals are never changed.

    Args:
        sources: Folders or files; their layouts are recognised.
        out: The study folder to make: ``manifest.parquet``, ``import.json``, and ``store/`` for
            copies and for images out of arrays.
        copy: Copy the files into ``out`` instead of referring to the originals.
        deidentify: Copy DICOM files in de-identified (PS3.15 Annex E), under their pseudonyms' names; those
            that may have text burnt into their pixels are named in the report. Other files hold no header
            to clean and are taken as they are. The secret behind the pseudonyms is made in ``out`` when
            first needed.
        name: Name of the source, instead of the layout's or the folder's; letters, digits, ``.-_``.
        groups: ``FILE.csv:PATHCOLUMN:GROUPCOLUMN`` overrides patient groups.
        overwrite: Replace the images of an existing study folder; its other files stay.
        progress: Told of every image.

    Returns:
        The report, also written as ``out/import.json``.

    Raises:
        LayoutError: A source that is laid out in no known way.
        DataError: ``out`` is taken, a source overlaps another or ``out``, no image could be
            imported, or the disk is full. ``out`` is then as it was before.
        SettingsError: A malformed ``name`` or ``groups``.
    """
    if name and not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise SettingsError(f"--name {name!r} has other characters than letters, digits, '.', '-' and '_'.")
    out = _absolute(out)
    places = [_absolute(source) for source in sources]
    _check_places(places, out, overwrite)
    listings = [recognise(place) for place in places]
    known_groups = read_groups(groups) if groups else {}
    gathering = _Gathering()
    try:
        with staged_folder(out, replaces=_OWN) as part, DecoderTrial() as trial:
            store = Store(part)
            pseudonyms = LatePseudonyms(out / SECRET_NAME, part / SECRET_NAME)
            for listing in listings:
                inspector = Inspector(
                    source=gathering.new_source(listing, name),
                    modality=listing.modality,
                    store=store,
                    trial=trial,
                    copy=copy,
                    pseudonyms=pseudonyms,
                    deidentify=deidentify,
                )
                gathering.take(listing, inspector, progress)
            gathering.regroup(known_groups)
            report = gathering.report(out, places)
            store.sync()
            Manifest(part, report.manifest.records).save()
            write_json(part / REPORT_NAME, report.as_dict())
    except OSError as error:
        raise DataError(
            f"Cannot write {out}: {error.strerror or error}.",
            why="Nothing was left behind.",
            fix="Free some space or choose another folder for --out.",
        ) from error
    return report


@dataclass
class _Gathering:
    """Rows and problems as they come in, source after source."""

    records: list[ImageRecord] = field(default_factory=list)
    origins: list[Path] = field(default_factory=list)
    problems: list[ImportProblem] = field(default_factory=list)
    layouts: dict[str, str] = field(default_factory=dict)
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)

    def new_source(self, listing: Listing, name: str) -> str:
        """Take up a source; returns its name, numbered where the wanted one is taken."""
        wanted = name or re.sub(r"[^\w.-]+", "-", listing.source)
        source, number = wanted, 2
        while source in self.layouts:
            source, number = f"{wanted}-{number}", number + 1
        self.layouts[source] = listing.layout
        self.notes[source] = listing.notes
        return source

    def take(self, listing: Listing, inspector: Inspector, progress: Progress) -> None:
        """Inspect all images of one listing."""
        step = f"import {inspector.source}"
        self.problems += listing.problems
        self.ignored.update(listing.ignored)
        progress(step, 0, listing.total)
        for done, inspected in enumerate(_inspect_all(inspector, listing.images), start=1):
            self.records += inspected.records
            self.origins += [inspected.origin] * len(inspected.records)
            self.problems += inspected.problems
            progress(step, done, listing.total)

    def regroup(self, groups: dict[Path, str]) -> None:
        """Apply the user's own patient groups."""
        self.records, unmatched = apply_groups(self.records, self.origins, groups)
        self.problems += unmatched

    def report(self, out: Path, places: list[Path]) -> ImportReport:
        """The report on everything taken so far.

        Raises:
            DataError: Not one image was taken.
        """
        if not self.records:
            first = "; ".join(f"{problem.file}: {problem.reason}" for problem in self.problems[:3])
            raise DataError(
                f"Not one image of {', '.join(map(str, places))} could be imported.",
                why=f"{len(self.problems)} problems, the first: {first}." if first else "",
                fix="Check that the images are whole.",
            )
        return ImportReport(
            manifest=Manifest(out, tuple(self.records)),
            layouts=self.layouts,
            problems=tuple(self.problems),
            ignored=self.ignored,
            notes=self.notes,
        )


def _inspect_all(inspector: Inspector, images: Iterable[FoundImage]) -> Iterator[Inspected]:
    """Inspect on all cores, in order, with a bounded number of images in flight."""
    pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="import")
    waiting: deque[Future[Inspected]] = deque()
    try:
        for image in images:
            waiting.append(pool.submit(inspector.inspect, image))
            if len(waiting) >= _QUEUED:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _check_places(places: list[Path], out: Path, overwrite: bool) -> None:
    """Refuse what would read an image twice or touch an original."""
    if not places:
        raise SettingsError("No source to import.", fix="Give at least one folder, CSV or .npz file.")
    real_out, real_places = out.resolve(), [place.resolve() for place in places]
    for number, place in enumerate(real_places):
        others = [*real_places[:number], *real_places[number + 1 :]]
        if any(place.is_relative_to(other) for other in others):
            raise DataError(f"{place} is given twice, alone or inside another source.", fix="Give it once.")
        if place.is_relative_to(real_out) or real_out.is_relative_to(place):
            raise DataError(
                f"The study folder {out} and the source {place} lie inside each other.",
                fix="Choose a folder for --out beside the source.",
            )
    if (out / MANIFEST_NAME).exists():
        if not overwrite:
            raise DataError(
                f"{out} already holds a manifest.", fix="Choose another folder, or allow --overwrite."
            )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(
            f"{out} is not empty and is no study folder.", fix="Choose a new or empty folder for --out."
        )


def _absolute(path: Path) -> Path:
    return Path(os.path.normpath(path.absolute()))
