"""Opening one found image: digest, size, decode check, store; its manifest rows or the reason why not."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from pydicom import Dataset

from fedlens.errors import UnreadableImageError
from fedlens.imaging import dicom
from fedlens.imaging.deidentify import deidentified_file
from fedlens.imaging.formats import DecodedImage, decode, decode_mask, read_bytes
from fedlens.imaging.import_report import ImportProblem
from fedlens.imaging.layouts import FoundImage
from fedlens.imaging.manifest import ImageRecord
from fedlens.imaging.pseudonyms import LatePseudonyms
from fedlens.imaging.store import Store
from fedlens.imaging.trial import DecoderTrial


@dataclass(frozen=True, slots=True)
class Inspected:
    """What came of one found image.

    Attributes:
        records: Its manifest rows: none if skipped, several for a multi-frame DICOM file.
        problems: Why it was skipped, or what was done to it.
        origin: The original file.
    """

    records: tuple[ImageRecord, ...]
    problems: tuple[ImportProblem, ...]
    origin: Path


@dataclass(frozen=True, slots=True)
class Inspector:
    """Inspects the images of one source; safe to call from several threads.

    Attributes:
        source: Name of the source.
        modality: Of images that say nothing else; empty where only the file can tell.
        store: Where pixels that are no files of their own are kept, and copies.
        trial: Where decoders that may crash are tried first.
        copy: Keep a copy of every file in the store, instead of a reference to the original.
        pseudonyms: For the identifiers in DICOM headers.
        deidentify: Keep a de-identified copy of every DICOM file, and no name of the original.
    """

    source: str
    modality: str
    store: Store
    trial: DecoderTrial
    copy: bool
    pseudonyms: LatePseudonyms
    deidentify: bool = False

    def inspect(self, found: FoundImage) -> Inspected:
        """Read an image's file once and make its rows.

        Raises:
            OSError: The store's disk is full or failing.
        """
        try:
            return self._rows(found)
        except UnreadableImageError as error:
            return Inspected((), (ImportProblem(str(found.path), error.reason),), found.path)

    def _rows(self, found: FoundImage) -> Inspected:
        data = read_bytes(found.path) if found.pixels is None else _as_png(found)
        dataset, frames = self._decode_all(data, found)
        facts = None if dataset is None else dicom.facts(dataset, self.pseudonyms.ready)
        notes = [note for decoded in frames for note in decoded.notes]
        patient = found.patient or (facts.patient if facts else "")
        name = f"{self.source}/{found.name}"
        file = str(found.path)
        if found.pixels is not None:
            file = self.store.add(data, ".png")
        elif dataset is not None and self.deidentify:
            data, patient = self._deidentified(dataset, frames, found, notes)
            file = self.store.add(data, ".dcm")
            # The original's name often is the patient's.
            name = f"{self.source}/{patient}/{self.pseudonyms.ready.patient(f'file {found.name}')}"
        elif self.copy:
            file = self.store.add(data, found.path.suffix)
        problems = [ImportProblem(str(found.path), note, "handled") for note in notes]
        mask = self._mask(found, frames, problems)
        records = tuple(
            ImageRecord(
                image_id=f"{name}{mark}",
                file=f"{file}{mark}",
                label=found.label,
                group=f"{self.source}:{patient}" if patient else name,
                modality=found.modality or (facts.modality if facts else self.modality or "other"),
                source=self.source,
                sha256=hashlib.sha256(data).hexdigest(),
                width=decoded.pixels.shape[1],
                height=decoded.pixels.shape[0],
                mask=mask,
                age=facts.age if found.age is None and facts else found.age,
                sex=found.sex or (facts.sex if facts else ""),
                site=found.site or (facts.site if facts else ""),
                subtype=found.subtype,
            )
            for mark, decoded in zip(_marks(len(frames)), frames, strict=True)
        )
        return Inspected(records, tuple(problems), found.path)

    def _decode_all(self, data: bytes, found: FoundImage) -> tuple[Dataset | None, list[DecodedImage]]:
        """The data set of a DICOM file, and every frame of any file."""
        if found.pixels is not None:
            return None, [DecodedImage(found.pixels)]
        name = str(found.path)
        if not dicom.is_dicom(data):
            return None, [decode(data, name)]
        dataset = dicom.parse(data, name)
        if dicom.decoder(dataset) == "gdcm":
            self.trial.check(data, name)
        count = dicom.frame_count(dataset)
        frames = [DecodedImage(dicom.pixels(dataset, frame, name)) for frame in range(count)]
        return dataset, frames

    def _deidentified(
        self, dataset: Dataset, frames: list[DecodedImage], found: FoundImage, notes: list[str]
    ) -> tuple[bytes, str]:
        """A de-identified file's bytes and the patient's pseudonym; adds suspicions to ``notes``."""
        data, result, suspicions = deidentified_file(
            dataset, [frame.pixels for frame in frames], self.pseudonyms.ready, str(found.path)
        )
        if suspicions:
            notes.append(f"text may be burnt into its pixels: {'; '.join(suspicions)}")
        known = found.patient and self.pseudonyms.ready.patient(f"patient {found.patient}")
        return data, known or result.patient

    def _mask(self, found: FoundImage, frames: list[DecodedImage], problems: list[ImportProblem]) -> str:
        """Where the outline is, or empty; a mask that does not fit is named in ``problems``."""
        if found.mask is None:
            return ""
        try:
            data = read_bytes(found.mask)
            drawn = decode_mask(data, str(found.mask))
        except UnreadableImageError as error:
            return self._no_mask(found.mask, error.reason, problems)
        size = frames[0].pixels.shape[:2]
        if len(frames) > 1:
            return self._no_mask(found.mask, "outline of a file with several frames", problems)
        if drawn.shape != size:
            sizes = "{1}x{0} outline of an image of {3}x{2}".format(*drawn.shape, *size)
            return self._no_mask(found.mask, sizes, problems)
        if not drawn.any():
            return self._no_mask(found.mask, "empty outline", problems)
        return self.store.add(data, found.mask.suffix) if self.copy else str(found.mask)

    @staticmethod
    def _no_mask(mask: Path, reason: str, problems: list[ImportProblem]) -> str:
        problems.append(ImportProblem(str(mask), f"{reason}; image imported without it", "handled"))
        return ""


def _marks(frames: int) -> list[str]:
    return [""] if frames == 1 else [f"#{frame}" for frame in range(frames)]


def _as_png(found: FoundImage) -> bytes:
    stream = io.BytesIO()
    assert found.pixels is not None
    Image.fromarray(found.pixels).save(stream, "PNG")
    return stream.getvalue()
