"""``fedlens data deidentify``: a folder of DICOM images, de-identified into another folder."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlens.errors import DataError, UnreadableImageError
from fedlens.files import write_bytes
from fedlens.imaging import dicom
from fedlens.imaging.deidentify import deidentified_file
from fedlens.imaging.formats import read_bytes
from fedlens.imaging.pseudonyms import Pseudonyms, load_pseudonyms
from fedlens.imaging.staging import staged_folder
from fedlens.imaging.trial import DecoderTrial
from fedlens.progress import Progress, silent

_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class DeidentifiedFile:
    """One image that was de-identified.

    Attributes:
        original: The file it was made from.
        file: Path inside the new folder.
        patient: The patient's pseudonym.
        suspicions: Why text may be burnt into its pixels; empty where nothing speaks for it.
        cleaned: Keywords of free text that was emptied because it repeated an identifier.
    """

    original: Path
    file: str
    patient: str
    suspicions: tuple[str, ...] = ()
    cleaned: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeidentifyReport:
    """What came of a folder.

    Attributes:
        folder: The new folder.
        files: The images in it.
        skipped: Files that are not in it, with the reason.
        secret: Where the secret is; it must stay at home.
        originals: Table of which new file is which original; it must stay at home.
    """

    folder: Path
    files: tuple[DeidentifiedFile, ...]
    skipped: tuple[tuple[Path, str], ...]
    secret: Path
    originals: Path

    def suspected(self) -> tuple[DeidentifiedFile, ...]:
        """Images that somebody should look at before they leave."""
        return tuple(file for file in self.files if file.suspicions)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON; names originals, so it is for use at home."""
        return {
            "folder": str(self.folder),
            "images": len(self.files),
            "patients": len({file.patient for file in self.files}),
            "suspected": [
                {"file": file.file, "original": str(file.original), "reasons": list(file.suspicions)}
                for file in self.suspected()
            ],
            "skipped": [{"original": str(path), "reason": reason} for path, reason in self.skipped],
            "secret": str(self.secret),
            "originals": str(self.originals),
        }

    def summary(self) -> str:
        """A readable account."""
        patients = len({file.patient for file in self.files})
        lines = [f"{len(self.files):,} images of {patients:,} patients de-identified into {self.folder}"]
        if self.skipped:
            lines += ["", f"Left out: {len(self.skipped):,}"]
            lines += [f"  {path}: {reason}" for path, reason in self.skipped[:_EXAMPLES]]
            lines += _more(len(self.skipped))
        if self.suspected():
            lines += ["", f"Look at these {len(self.suspected()):,} first, text may be burnt into them:"]
            lines += [f"  {file.file}: {'; '.join(file.suspicions)}" for file in self.suspected()[:_EXAMPLES]]
            lines += _more(len(self.suspected()))
        lines += ["", "To be kept at home, never passed on:", f"  {self.secret}", f"  {self.originals}"]
        return "\n".join(lines)


def deidentify_folder(
    sources: Sequence[Path], out: Path, *, secret: Path | None = None, progress: Progress = silent
) -> DeidentifyReport:
    """De-identify DICOM images (PS3.15 Annex E, see ``deidentify``) into a new folder.

    Files come to lie at ``PATIENT/STUDY/IMAGE.dcm``, all three names made from the secret. Files that are no
    DICOM images are left out and named: what is in a report or a PDF cannot be cleaned here. Originals are
    never changed.

    Args:
        sources: Folders, however deep, or files.
        out: The folder to make.
        secret: File with the secret behind pseudonyms, made on first use; ``OUT.secret`` beside ``out``
            when None. Give the same one again for the same pseudonyms.
        progress: Called with step ``deidentify``.

    Returns:
        The report. ``OUT-originals.csv`` beside ``out`` tells which file is which.

    Raises:
        DataError: ``out`` is taken, holds the secret or a source, no image could be read, the secret cannot
            be used, or the disk is full.
    """
    out = out if out.name else out.absolute()
    secret = secret or out.with_name(f"{out.name}.secret")
    originals = out.with_name(f"{out.name}-originals.csv")
    _check_places(sources, out, secret)
    files = _files(sources)
    pseudonyms = load_pseudonyms(secret)
    made: dict[str, DeidentifiedFile] = {}
    skipped: list[tuple[Path, str]] = []
    try:
        with staged_folder(out) as part, DecoderTrial() as trial:
            for done, path in enumerate(files):
                progress("deidentify", done, len(files))
                try:
                    content, file = _one(path, pseudonyms, trial)
                except UnreadableImageError as error:
                    skipped.append((path, error.reason))
                    continue
                if file.file in made:
                    skipped.append((path, f"the same image as {made[file.file].original}"))
                    continue
                write_bytes(part / file.file, content)
                made[file.file] = file
            if not made:
                raise DataError(
                    "Not one DICOM image was found.",
                    why=f"{skipped[0][0]}: {skipped[0][1]}." if skipped else "There are no files.",
                )
            _write_originals(originals, list(made.values()))
    except OSError as error:
        raise DataError(
            f"Cannot write {out}: {error.strerror or error}.", why="Nothing was left there."
        ) from error
    progress("deidentify", len(files), len(files))
    return DeidentifyReport(out, tuple(made.values()), tuple(skipped), secret, originals)


def _one(path: Path, pseudonyms: Pseudonyms, trial: DecoderTrial) -> tuple[bytes, DeidentifiedFile]:
    data = read_bytes(path)
    name = str(path)
    if not dicom.is_dicom(data):
        raise UnreadableImageError(name, "no DICOM file")
    dataset = dicom.parse(data, name)
    if dicom.decoder(dataset) == "gdcm":
        trial.check(data, name)
    frames = (dicom.pixels(dataset, number, name) for number in range(dicom.frame_count(dataset)))
    content, result, suspicions = deidentified_file(dataset, frames, pseudonyms, name)
    uids = [str(result.dataset.get(tag) or "none") for tag in ("StudyInstanceUID", "SOPInstanceUID")]
    file = f"{result.patient}/{uids[0]}/{uids[1]}.dcm"
    return content, DeidentifiedFile(path, file, result.patient, suspicions, result.cleaned)


def _check_places(sources: Sequence[Path], out: Path, secret: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is not empty.", fix="Choose a new or empty folder.")
    real = out.resolve()
    if secret.resolve().is_relative_to(real):
        raise DataError(
            f"The secret {secret} would lie in {out}.",
            why="Whoever gets the folder would get the secret with it.",
            fix="Choose a place for --secret outside.",
        )
    for source in sources:
        if not source.exists():
            raise DataError(f"{source} does not exist.")
        place = source.resolve()
        if place.is_relative_to(real) or real.is_relative_to(place):
            raise DataError(f"{source} and {out} lie inside each other.", fix="Choose a folder beside it.")


def _files(sources: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for source in sources:
        inside = source.rglob("*") if source.is_dir() else [source]
        found += sorted(path for path in inside if path.is_file() and not path.name.startswith("."))
    return found


def _write_originals(path: Path, files: Sequence[DeidentifiedFile]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["file", "patient", "original", "suspected"])
    for file in files:
        table.writerow([file.file, file.patient, file.original, "; ".join(file.suspicions)])
    write_bytes(path, text.getvalue().encode(), mode=0o600)


def _more(count: int) -> list[str]:
    return [f"  … and {count - _EXAMPLES:,} more"] if count > _EXAMPLES else []
