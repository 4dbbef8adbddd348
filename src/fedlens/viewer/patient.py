"""Whose image a DICOM file says it is; for the page, never for an address or a log."""

from __future__ import annotations

from pydicom import Dataset

from fedlens.imaging.dicom import DAMAGE

_LONGEST = 128


def patient_text(dataset: Dataset) -> str:
    """The patient's name and number, ``Doe Jane (4711)``; what the header leaves out is left out."""
    try:
        name = str(dataset.get("PatientName") or "")
        number = str(dataset.get("PatientID") or "").strip()
    except DAMAGE:
        return ""
    # Family and given name stand between carets, other ways of writing them behind equals signs.
    name = " ".join(name.partition("=")[0].replace("^", " ").split())
    text = f"{name} ({number})" if name and number else name or number
    return "".join(letter for letter in text if letter.isprintable())[:_LONGEST]
