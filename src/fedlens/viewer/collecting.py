"""Which images a viewer shows: the study's, and those of files and folders that it was given."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from fedlens.errors import DataError, HistoryError, SettingsError, UnreadableImageError
from fedlens.image_loading import find_images, shown_name
from fedlens.imaging import dicom
from fedlens.imaging.formats import locate, read_bytes
from fedlens.imaging.manifest import ImageRecord, Manifest
from fedlens.preparation import plan_images, roster
from fedlens.progress import Progress, silent
from fedlens.run_folder import check_images, kept_study
from fedlens.viewer.case import Case, new_case_id
from fedlens.viewer.patient import patient_text

_THREADS = 4


@dataclass(frozen=True)
class StudyImages:
    """Images of the study that a network comes from.

    Attributes:
        cases: Test images to be listed, and all others for reference.
        groups: Patient or lesion of each image, by digest of its file.
        note: Why there are none; empty where there are.
    """

    cases: tuple[Case, ...] = ()
    groups: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


def study_images(checkpoint: Path, *, hospital: str = "", progress: Progress = silent) -> StudyImages:
    """The study's images where they still are, split as the network was trained.

    Args:
        checkpoint: The network's folder.
        hospital: Whose images; all when empty.
        progress: Told while the study is planned.

    Raises:
        HistoryError: The kept settings are damaged.
        SettingsError: The study has no such hospital.
    """
    study = kept_study(checkpoint)
    if study is None:
        return StudyImages(note=_without("the run kept no study.json"))
    try:
        manifest = plan_images(study, progress=progress)
        # Under other splits, images that the network learnt from would be listed as test images.
        check_images(checkpoint, manifest)
    except (DataError, HistoryError, SettingsError) as error:
        return StudyImages(note=_without(error.what.rstrip(".")))
    hospitals = roster(study, manifest)
    if hospital and hospital not in hospitals:
        raise SettingsError(
            f"The study has no hospital {hospital!r}.", fix=f"Choose one of {', '.join(hospitals)}."
        )
    added = now()
    shown = [record for record in manifest if not hospital or record.hospital == hospital]
    return StudyImages(
        cases=tuple(_study_case(manifest, record, added) for record in shown),
        groups={record.sha256: record.cluster for record in manifest},
    )


def folder_cases(paths: Sequence[Path], *, progress: Progress = silent) -> Iterator[Case]:
    """A case for each image below some paths, and for each frame of a multi-frame DICOM file.

    Raises:
        SettingsError: There is nothing at one of the paths.
    """
    for path in paths:
        if not path.exists():
            raise SettingsError(f"There is no file or folder {path}.", fix="Give images or folders of them.")
    found = find_images(paths)
    files = [path for path, _ in itertools.groupby(found, key=lambda image: image[0])]
    added = now()
    with ThreadPoolExecutor(max_workers=_THREADS) as workers:
        described = workers.map(_described, files)
        for done, (path, images) in enumerate(itertools.groupby(found, key=lambda image: image[0])):
            progress("read images", done, len(files))
            sha256, patient = next(described)
            for _, frame in images:
                yield Case(
                    case_id=new_case_id(),
                    title=shown_name((Path(path.name), frame)),
                    origin="folder",
                    file=path.absolute(),
                    frame=frame or 0,
                    sha256=sha256,
                    patient=patient,
                    added=added,
                )
    if files:
        progress("read images", len(files), len(files))


def now() -> str:
    """UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _study_case(manifest: Manifest, record: ImageRecord, added: str) -> Case:
    file, frame = locate(manifest, record)
    return Case(
        case_id=new_case_id(),
        # Files in a study's own store are called by their digests.
        title=PurePosixPath(record.image_id).name,
        origin="study" if record.split == "test" else "reference",
        file=file,
        frame=frame,
        sha256=record.sha256,
        label=record.label,
        hospital=record.hospital,
        added=added,
    )


def _described(path: Path) -> tuple[str, str]:
    """Digest of a file's bytes, and whose image it is; both empty where it cannot be read."""
    try:
        data = read_bytes(path)
    except UnreadableImageError:
        return "", ""
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        return sha256, patient_text(dicom.parse(data, path.name)) if dicom.is_dicom(data) else ""
    except UnreadableImageError:
        return sha256, ""


def _without(reason: str) -> str:
    return f"The study's own images are not shown: {reason}."
