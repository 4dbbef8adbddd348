"""De-identification of DICOM images (PS3.15 Annex E: Basic Profile, with modified dates).

Identifiers are removed or replaced, private attributes removed, UIDs replaced and dates moved, in nested
sequences too. Pixels stay as they are: text that may be burnt into them is reported for a person to look at.
A face can be rebuilt from a head scan; nothing here changes that.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
import numpy.typing as npt
from pydicom import DataElement, Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from fedlens.errors import UnreadableImageError
from fedlens.imaging import dicom
from fedlens.imaging.burnt_in import suspected_text
from fedlens.imaging.confidentiality import EDITION, Action, action
from fedlens.imaging.dates import shift_date, shift_datetime, shift_moment, shift_time
from fedlens.imaging.pseudonyms import Pseudonyms

_TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT", "UR", "AE"})
_NUMBER_VRS = frozenset({"FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"})
_BYTE_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_DUMMIES = {"AS": "000Y", "DS": "0", "IS": "0", "UR": "urn:removed", "DA": "19000101", "TM": "000000"}
_DUMMY_TEXT = "REMOVED"
_IDENTIFYING = (
    "PatientID",
    "PatientName",
    "OtherPatientIDs",
    "OtherPatientNames",
    "AccessionNumber",
    "PatientBirthName",
    "PatientMotherBirthName",
    "ReferringPhysicianName",
    "PerformingPhysicianName",
    "OperatorsName",
    "InstitutionName",
)
# Makers often share a name with what somebody typed in as institution.
_NO_FREE_TEXT = frozenset({"Manufacturer", "ManufacturerModelName"})
# Shorter words are too often ordinary ones ("Lee", "May").
_SHORTEST = 4
_FRAMES = 10
_MARKS = (
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
)
_META_LEFT_OUT = (
    "SourceApplicationEntityTitle",
    "SendingApplicationEntityTitle",
    "ReceivingApplicationEntityTitle",
    "SourcePresentationAddress",
    "SendingPresentationAddress",
    "ReceivingPresentationAddress",
    "PrivateInformationCreatorUID",
    "PrivateInformation",
    "ImplementationVersionName",
)


@dataclass(frozen=True)
class Deidentified:
    """One de-identified image.

    Attributes:
        dataset: The new data set; encoded pixels are those of the original.
        patient: The patient's pseudonym, 16 hexadecimal digits.
        cleaned: Keywords of free text that was emptied because it repeated an identifier.
    """

    dataset: Dataset = field(repr=False)
    patient: str
    cleaned: tuple[str, ...] = ()


def deidentify(dataset: Dataset, pseudonyms: Pseudonyms) -> Deidentified:
    """De-identify one image by Table E.1-1; the given data set is not changed.

    Beyond the table, free text in which a word of the patient's, a physician's or the institution's name, or
    one of their numbers stands, is emptied.

    Args:
        dataset: As ``dicom.parse`` returns it.
        pseudonyms: Of this hospital.

    Raises:
        ValueError: An element cannot be read.
    """
    key = dicom.patient_key(dataset)
    patient = pseudonyms.patient(key)
    words = _identifying_words(dataset)
    rewriting = _Rewriting(pseudonyms, pseudonyms.offset(key), words)
    new = rewriting.dataset(dataset)
    new.PatientID = patient
    new.PatientName = patient
    _say_so(new)
    new.file_meta = _file_meta(dataset, new)
    # The preamble can hold 128 bytes of anything.
    new.preamble = b"\0" * 128
    return Deidentified(new, patient, tuple(dict.fromkeys(rewriting.cleaned)))


def deidentified_file(
    dataset: Dataset, frames: Iterable[npt.NDArray[np.uint8]], pseudonyms: Pseudonyms, name: str
) -> tuple[bytes, Deidentified, tuple[str, ...]]:
    """De-identify one image, write it as a file of its own encoding, and say where text is suspected.

    Args:
        dataset: As ``dicom.parse`` returns it.
        frames: Its decoded frames, uint8 (H, W) or (H, W, 3); the first ten are looked at for text.
        pseudonyms: Of this hospital.
        name: Of the file, for messages.

    Returns:
        The file's bytes, the de-identified image, and reasons to suspect burnt-in text.

    Raises:
        UnreadableImageError: An element cannot be read or written.
    """
    kind = dicom.modality(dataset)
    suspicions: list[str] = []
    for frame in itertools.islice(frames, _FRAMES):
        suspicions += suspected_text(dataset, frame, kind)
    stream = io.BytesIO()
    try:
        result = deidentify(dataset, pseudonyms)
        result.dataset.save_as(stream, enforce_file_format=True)
    except dicom.DAMAGE as error:
        raise UnreadableImageError(name, f"cannot be de-identified: {error}") from error
    return stream.getvalue(), result, tuple(dict.fromkeys(suspicions))


@dataclass
class _Rewriting:
    """One data set on its way through the table.

    Attributes:
        pseudonyms: Of this hospital.
        offset: How far this patient's dates move.
        words: In lower case; free text holding one of them is emptied.
        cleaned: Keywords of what was emptied for that.
    """

    pseudonyms: Pseudonyms
    offset: timedelta
    words: frozenset[str]
    cleaned: list[str] = field(default_factory=list)

    def dataset(self, old: Dataset) -> Dataset:
        """A new data set out of ``old``, sequences included."""
        new = Dataset()
        for element in old:
            made = self._element(element, old)
            if made is not None:
                new.add(made)
        implicit, little = old.original_encoding
        new.set_original_encoding(implicit, little, old.original_character_set)
        return new

    def _element(self, element: DataElement, old: Dataset) -> DataElement | None:
        wanted = action(element.tag, element.VR)
        if wanted is Action.REMOVE:
            return None
        if wanted is Action.EMPTY:
            return DataElement(element.tag, element.VR, Sequence() if element.VR == "SQ" else None)
        if wanted is Action.DUMMY:
            return self._dummy(element)
        if wanted is Action.UID:
            return self._with(element, [self.pseudonyms.uid(str(uid)) for uid in _values(element)])
        if wanted is Action.SHIFT:
            return self._shifted(element, old)
        if element.VR == "SQ":
            return DataElement(element.tag, "SQ", Sequence([self.dataset(item) for item in element.value]))
        return self._cleaned(element)

    def _cleaned(self, element: DataElement) -> DataElement:
        if element.VR in _TEXT_VRS and self.words and element.keyword not in _NO_FREE_TEXT:
            found = {word for value in _values(element) for word in _words(str(value))}
            if found & self.words:
                self.cleaned.append(element.keyword)
                return DataElement(element.tag, element.VR, None)
        # Not copied: only the element itself knows that its pixels are encapsulated.
        return element

    def _shifted(self, element: DataElement, old: Dataset) -> DataElement:
        """A date or time moved; one that is garbled is emptied.

        A date and a time of the same name are one moment, and move as one.
        """
        values = [str(value) for value in _values(element)]
        if element.VR == "DT":
            return self._with(element, [shift_datetime(value, self.offset) for value in values])
        partner = old.get(_partner(element.keyword, element.VR))
        if len(values) == 1 and partner:
            date, time = (values[0], str(partner)) if element.VR == "DA" else (str(partner), values[0])
            moved = shift_moment(date, time, self.offset)
            return self._with(element, [moved[0 if element.VR == "DA" else 1]])
        shift = shift_date if element.VR == "DA" else shift_time
        return self._with(element, [shift(value, self.offset) for value in values])

    def _dummy(self, element: DataElement) -> DataElement:
        """A value of the right kind that says nothing; an empty element stays empty."""
        vr = element.VR
        if element.is_empty:
            return DataElement(element.tag, vr, None)
        if vr == "SQ":
            items = []
            for item in element.value:
                made = Dataset()
                for inner in item:
                    # Codes may name a person, so nothing within is kept as it is.
                    if action(inner.tag, inner.VR) is not Action.REMOVE:
                        made.add(self._dummy(inner))
                items.append(made)
            return DataElement(element.tag, "SQ", Sequence(items))
        if vr == "UI":
            return self._with(element, [self.pseudonyms.uid(str(uid)) for uid in _values(element)])
        if vr == "DT":
            return DataElement(element.tag, vr, "19000101000000")
        if vr in _NUMBER_VRS:
            return DataElement(element.tag, vr, 0)
        if vr in _BYTE_VRS:
            return DataElement(element.tag, vr, b"\0\0")
        return DataElement(element.tag, vr, _DUMMIES.get(vr, _DUMMY_TEXT))

    @staticmethod
    def _with(element: DataElement, values: list[str]) -> DataElement:
        return DataElement(element.tag, element.VR, values[0] if len(values) == 1 else (values or None))


def _say_so(new: Dataset) -> None:
    """The marks that PS3.15 E.1.1 asks for."""
    for keyword in _MARKS:
        # Elements that stay are shared with the original, which is not to change.
        new.pop(keyword, None)
    new.PatientIdentityRemoved = "YES"
    new.DeidentificationMethod = f"FedLens, PS3.15 E.1-1 {EDITION}"
    new.LongitudinalTemporalInformationModified = "MODIFIED"
    codes = (
        ("113100", "Basic Application Confidentiality Profile"),
        ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    )
    items = []
    for value, meaning in codes:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
        items.append(item)
    new.DeidentificationMethodCodeSequence = Sequence(items)


def _file_meta(old: Dataset, new: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.update(old.file_meta)
    for name in _META_LEFT_OUT:
        if name in meta:
            delattr(meta, name)
    if "SOPInstanceUID" in new:
        meta.MediaStorageSOPInstanceUID = new.SOPInstanceUID
    elif "MediaStorageSOPInstanceUID" in meta:
        del meta.MediaStorageSOPInstanceUID
    return meta


def _identifying_words(dataset: Dataset) -> frozenset[str]:
    found: set[str] = set()
    for name in _IDENTIFYING:
        if name in dataset:
            found.update(word for value in _values(dataset[name]) for word in _words(str(value)))
    return frozenset(found)


def _words(text: str) -> Iterator[str]:
    for word in re.split(r"[\W_]+", text.lower()):
        if len(word) >= _SHORTEST:
            yield word


def _values(element: DataElement) -> list[object]:
    if element.is_empty:
        return []
    return list(element.value) if isinstance(element.value, MultiValue | list) else [element.value]


def _partner(keyword: str, vr: str) -> str:
    """``StudyTime`` for ``StudyDate``, and the other way round."""
    mine, other = ("Date", "Time") if vr == "DA" else ("Time", "Date")
    return f"{keyword.removesuffix(mine)}{other}" if keyword.endswith(mine) else ""
