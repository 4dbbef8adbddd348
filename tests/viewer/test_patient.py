"""Whose image a header says it is."""

from __future__ import annotations

import pytest
from pydicom import Dataset

from fedlens.viewer.patient import patient_text


@pytest.mark.parametrize(
    ("name", "number", "said"),
    [
        ("Doe^Jane^^Dr", "4711", "Doe Jane Dr (4711)"),
        ("Doe^Jane", "", "Doe Jane"),
        ("", "4711", "4711"),
        ("", "", ""),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "1", "Yamada Tarou (1)"),
        ("Doe\u202e\x1b[31m^Jane", "1", "Doe[31m Jane (1)"),
    ],
)
def test_name_and_number(name: str, number: str, said: str) -> None:
    dataset = Dataset()
    dataset.PatientName, dataset.PatientID = name, number
    assert patient_text(dataset) == said


def test_a_header_without_a_patient_and_a_very_long_one() -> None:
    assert patient_text(Dataset()) == ""
    dataset = Dataset()
    dataset.PatientName = "x" * 60
    dataset.PatientID = "9" * 64
    assert len(patient_text(dataset)) <= 128
