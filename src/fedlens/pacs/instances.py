"""What is asked for, where it comes to lie, and what came of it: the same for both protocols."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from fedlens.errors import DataError, PacsError
from fedlens.imaging import dicom
from fedlens.pacs.settings import is_uid

_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Instance:
    """One image or other object that a PACS has.

    Attributes:
        study: Study Instance UID.
        series: Series Instance UID.
        uid: SOP Instance UID.
        sop_class: SOP Class UID; empty where the PACS does not tell.

    Raises:
        PacsError: A UID that is none, which could lead out of the folder.
    """

    study: str
    series: str
    uid: str
    sop_class: str = ""

    def __post_init__(self) -> None:
        for uid in (self.study, self.series, self.uid):
            if not is_uid(uid):
                raise PacsError(f"The PACS names an object {uid!r}, which is no UID.")

    def path(self, folder: Path) -> Path:
        """Where it comes to lie."""
        return folder / self.study / self.series / f"{self.uid}.dcm"


@dataclass
class PullReport:
    """What came of a pull.

    Attributes:
        folder: Where the files lie.
        found: Instances that matched.
        pulled: Files that came this time.
        there: Files that were there already.
        failed: Instance UIDs that did not come, with the reason.
    """

    folder: Path
    found: int = 0
    pulled: list[Path] = field(default_factory=list)
    there: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "folder": str(self.folder),
            "found": self.found,
            "pulled": len(self.pulled),
            "there": self.there,
            "failed": [{"instance": uid, "reason": reason} for uid, reason in self.failed],
        }

    def summary(self) -> str:
        """A readable account."""
        lines = [f"{len(self.pulled):,} objects pulled into {self.folder}, {self.there:,} were there already"]
        return "\n".join(lines + _failures(self.failed))


@dataclass
class PushReport:
    """What came of a push.

    Attributes:
        stored: Files that the PACS took.
        failed: Files that it did not take, with the reason.
    """

    stored: list[Path] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "stored": len(self.stored),
            "failed": [{"file": file, "reason": reason} for file, reason in self.failed],
        }

    def summary(self) -> str:
        """A readable account."""
        return "\n".join([f"{len(self.stored):,} objects stored", *_failures(self.failed)])


def save_instance(dataset: Dataset, instance: Instance, folder: Path) -> Path:
    """Write a received object whole to its place.

    Raises:
        PacsError: It is another object than the one asked for.
        DataError: It cannot be written.
    """
    if str(dataset.get("SOPInstanceUID")) != instance.uid:
        raise PacsError(f"The PACS sent {dataset.get('SOPInstanceUID')} for {instance.uid}.")
    path = instance.path(folder)
    try:
        return dicom.save(path, dataset)
    except OSError as error:
        raise DataError(f"Cannot write {path}: {error.strerror or error}.") from error


def missing(instances: Sequence[Instance], report: PullReport) -> list[Instance]:
    """The instances that are not in the folder yet; files are written whole, so being there is enough."""
    report.found = len(instances)
    wanted = [instance for instance in instances if not instance.path(report.folder).exists()]
    report.there = len(instances) - len(wanted)
    return wanted


def within(instances: Sequence[Instance], limit: int) -> Sequence[Instance]:
    """The instances, refused where there are more than asked for.

    Raises:
        PacsError: Too many.
    """
    if len(instances) > limit:
        raise PacsError(
            f"More than {limit:,} objects match.",
            why="Nothing was pulled.",
            fix="Narrow the search, or raise --limit.",
        )
    return instances


def files_to_push(paths: Sequence[Path]) -> list[Path]:
    """DICOM files among files and folders, sorted.

    Raises:
        DataError: A path does not exist, a named file is no DICOM file, or there is none at all.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise DataError(f"{path} does not exist.")
        if path.is_dir():
            found += sorted(file for file in path.rglob("*") if file.is_file() and dicom.has_preamble(file))
        elif dicom.has_preamble(path):
            found.append(path)
        else:
            raise DataError(f"{path} is no DICOM file.", fix="Only whole DICOM files can be pushed.")
    if not found:
        raise DataError("No DICOM file to push.")
    return list(dict.fromkeys(found))


def read_file(path: Path) -> Dataset:
    """A file to push.

    Raises:
        DataError: Damaged.
    """
    try:
        return dcmread(path)
    except (InvalidDicomError, OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error


def _failures(failed: Sequence[tuple[str, str]]) -> list[str]:
    if not failed:
        return []
    lines = ["", f"Failed: {len(failed):,}"]
    lines += [f"  {name}: {reason}" for name, reason in failed[:_EXAMPLES]]
    return lines + ([f"  … and {len(failed) - _EXAMPLES:,} more"] if len(failed) > _EXAMPLES else [])
