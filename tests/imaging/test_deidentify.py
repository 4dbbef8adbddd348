"""De-identification by PS3.15 Annex E, on made headers full of identifiers and on real files."""

from __future__ import annotations

import io
import json
import stat
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from typer.testing import CliRunner

from fedlens.cli.main import app
from fedlens.errors import DataError
from fedlens.imaging import dicom
from fedlens.imaging.burnt_in import suspected_text
from fedlens.imaging.confidentiality import Action, action
from fedlens.imaging.deidentified_folder import deidentify_folder
from fedlens.imaging.deidentify import deidentified_file, deidentify
from fedlens.imaging.formats import read_image
from fedlens.imaging.importer import import_images
from fedlens.imaging.pseudonyms import Pseudonyms

HOME = Pseudonyms(b"1" * 32)
TELLING = (
    "Doe", "Jane", "MRN-4711", "19610203", "ACC99", "Elsewhere", "House", "0815", "Main Street",
    "1.2.3.4", "20200301", "private word", "Cuddy", "SN-1", "WS-7",
)  # fmt: skip


def scan(**tags: object) -> Dataset:
    """An image with an identifier in every corner."""
    dataset = dcmread(get_testdata_file("MR_small.dcm", download=False))
    values: dict[str, object] = {
        "PatientName": "Doe^Jane",
        "PatientID": "MRN-4711",
        "PatientBirthDate": "19610203",
        "PatientSex": "F",
        "PatientAge": "059Y",
        "OtherPatientIDs": ["0815", "0816"],
        "PatientAddress": "Main Street 1",
        "AccessionNumber": "ACC99",
        "InstitutionName": "St. Elsewhere",
        "ReferringPhysicianName": "House^Gregory",
        "OperatorsName": "Cuddy^Lisa",
        "DeviceSerialNumber": "SN-1",
        "StationName": "WS-7",
        "StudyDate": "20200301",
        "StudyTime": "120000",
        "AcquisitionDateTime": "20200301120500",
        "StudyInstanceUID": "1.2.3.4.1",
        "SeriesInstanceUID": "1.2.3.4.2",
        "SOPInstanceUID": "1.2.3.4.3",
        "FrameOfReferenceUID": "1.2.3.4.5",
        "StudyDescription": "Doe, Jane: head",
        "ImageComments": "Mrs. Doe moved",
        "AcquisitionContrast": "T2",
        "PatientIdentityRemoved": "NO",
        **tags,
    }
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    block = dataset.private_block(0x0011, "ACME", create=True)
    block.add_new(0x01, "LO", "private word")
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", "1.2.3.4.3"
    inner = item.private_block(0x0013, "ACME", create=True)
    inner.add_new(0x02, "LO", "private word")
    dataset.ReferencedImageSequence = Sequence([item])
    person = Dataset()
    person.PatientName, person.AcquisitionDate = "Doe^Jane", "20200302"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99X", "seen by Dr. House"
    person.ConceptNameCodeSequence = Sequence([code])
    dataset.AnatomicRegionSequence = Sequence([person])
    dataset.add_new(0x60003000, "OW", b"\1\0" * 8)
    dataset.add_new(0x60000010, "US", 8)
    dataset.preamble = b"Doe^Jane".ljust(128)
    dataset.file_meta.SourceApplicationEntityTitle = "ELSEWHERE"
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.3"
    return dataset


def test_no_identifier_is_left_anywhere_in_the_file() -> None:
    data, result, _ = deidentified_file(scan(), [], HOME, "scan.dcm")

    for word in TELLING:
        assert word.encode() not in data, word
        assert word.upper().encode() not in data, word
    new = dcmread(io.BytesIO(data))
    assert not [element for element in new.iterall() if element.tag.is_private]
    assert new.preamble == b"\0" * 128
    assert new.PatientID == str(new.PatientName) == result.patient
    assert not new.PatientBirthDate
    assert not new.PatientSex
    assert "PatientAge" not in new
    assert not [element for element in new if element.tag.group == 0x6000]
    assert new.file_meta.MediaStorageSOPInstanceUID == new.SOPInstanceUID
    assert result.cleaned == ("CodeMeaning",)


def test_what_makes_the_image_stays() -> None:
    old = scan()
    new = dcmread(io.BytesIO(deidentified_file(old, [], HOME, "scan.dcm")[0]))

    assert np.array_equal(new.pixel_array, old.pixel_array)
    for keyword in ("Modality", "Rows", "PixelSpacing", "EchoTime", "ImagePositionPatient", "SOPClassUID"):
        assert new[keyword].value == old[keyword].value, keyword
    assert new.AcquisitionContrast == "T2"


def test_it_says_what_was_done() -> None:
    new = deidentify(scan(), HOME).dataset

    assert new.PatientIdentityRemoved == "YES"
    assert new.LongitudinalTemporalInformationModified == "MODIFIED"
    assert [item.CodeValue for item in new.DeidentificationMethodCodeSequence] == ["113100", "113107"]


def test_references_still_fit_and_a_patients_days_stay_apart() -> None:
    first = deidentify(scan(), HOME).dataset
    later = deidentify(
        scan(StudyDate="20200408", SOPInstanceUID="1.2.3.4.9", StudyInstanceUID="1.2.3.4.8"), HOME
    ).dataset

    assert first.PatientID == later.PatientID
    assert first.ReferencedImageSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert first.FrameOfReferenceUID == later.FrameOfReferenceUID != "1.2.3.4.5"
    assert len({first.SOPInstanceUID, later.SOPInstanceUID, first.StudyInstanceUID}) == 3
    days = [
        np.datetime64(f"{date[:4]}-{date[4:6]}-{date[6:]}") for date in (first.StudyDate, later.StudyDate)
    ]
    assert days[1] - days[0] == np.timedelta64(38, "D")
    # The date and time of the study and the two in one of its acquisition were five minutes apart.
    study = int(first.StudyTime[:2]) * 60 + int(first.StudyTime[2:4])
    shot = int(first.AcquisitionDateTime[8:10]) * 60 + int(first.AcquisitionDateTime[10:12])
    assert (shot - study) % 1440 == 5


def test_other_patients_and_other_secrets_differ() -> None:
    mine = deidentify(scan(), HOME).dataset
    hers = deidentify(scan(PatientID="MRN-4712"), HOME).dataset
    elsewhere = deidentify(scan(), Pseudonyms(b"2" * 32)).dataset

    assert len({str(item.PatientID) for item in (mine, hers, elsewhere)}) == 3
    assert len({str(item.StudyDate) for item in (mine, hers, elsewhere)}) == 3
    assert mine.SOPInstanceUID != elsewhere.SOPInstanceUID


def test_the_original_is_not_changed() -> None:
    old = scan()
    before = old.to_json()
    deidentify(old, HOME)
    assert old.to_json() == before


@pytest.mark.parametrize(
    ("keyword", "vr", "wanted"),
    [
        ("PatientName", "PN", Action.EMPTY),
        ("PatientBirthDate", "DA", Action.EMPTY),
        ("StudyDate", "DA", Action.SHIFT),
        ("AcquisitionDateTime", "DT", Action.SHIFT),
        ("SOPInstanceUID", "UI", Action.UID),
        ("SOPClassUID", "UI", Action.KEEP),
        ("PatientComments", "LT", Action.REMOVE),
        ("RequestAttributesSequence", "SQ", Action.REMOVE),
        ("ReferencedImageSequence", "SQ", Action.INSIDE),
        ("InstitutionName", "LO", Action.DUMMY),
        ("ProtocolName", "LO", Action.DUMMY),
        ("Rows", "US", Action.KEEP),
    ],
)
def test_actions_of_the_table(keyword: str, vr: str, wanted: Action) -> None:
    assert action(Tag(keyword), vr) is wanted


def test_what_nobody_knows_goes() -> None:
    assert action(Tag(0x0019, 0x1001), "LO") is Action.REMOVE
    assert action(Tag(0x0008, 0x0003), "LO") is Action.REMOVE
    assert action(Tag(0x5002, 0x3000), "OW") is Action.REMOVE


def test_burnt_in_text_is_suspected() -> None:
    clean = np.random.default_rng(0).integers(0, 6, (256, 256)).astype(np.uint8)
    cv2.ellipse(clean, (128, 140), (70, 90), 0, 0, 360, 120, -1)
    lettered = cv2.putText(clean.copy(), "DOE JANE", (8, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 250, 2)
    plain = scan()

    assert suspected_text(plain, clean, "mri") == ()
    assert suspected_text(plain, lettered, "mri") == (
        "bright marks beside or over the body",
        "bright shapes in a row, like letters",
    )
    assert len(suspected_text(scan(BurnedInAnnotation="YES"), clean, "mri")) == 1
    assert len(suspected_text(scan(SOPClassUID="1.2.840.10008.5.1.4.1.1.7"), clean, "mri")) == 1


@pytest.mark.real
@pytest.mark.parametrize("name", ["RG1_J2KI.dcm", "bbmri-53323131.dcm", "gdcm-CR-MONO1-10-chest.dcm"])
@pytest.mark.parametrize("height", [0.35, 0.5, 1.0])
def test_a_line_of_text_is_seen_however_small_and_real_images_raise_no_alarm(
    shared_data: Path, name: str, height: float
) -> None:
    image = read_image(shared_data / "dicom" / name)
    thick = max(1, round(2 * height))
    written = cv2.putText(
        image.copy(), "DOE JANE 1961", (5, 40), cv2.FONT_HERSHEY_SIMPLEX, height, 255, thick
    )

    modality = "mri" if name.startswith("bbmri") else "xray"
    assert suspected_text(Dataset(), image, modality) == ()
    assert suspected_text(Dataset(), written, modality)


def test_a_folder_is_de_identified_under_names_that_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    scan().save_as(tmp_path / "in" / "Doe_Jane.dcm")
    scan(SOPInstanceUID="1.2.3.4.7").save_as(tmp_path / "in" / "Doe_Jane_2.dcm")
    scan().save_as(tmp_path / "in" / "same.dcm")
    (tmp_path / "in" / "letter.txt").write_text("Dear Mrs. Doe")

    report = deidentify_folder([tmp_path / "in"], tmp_path / "out")

    assert len(report.files) == 2
    assert len({file.patient for file in report.files}) == 1
    assert (
        sorted(path.name for path, _ in report.skipped) == ["letter.txt", "same.dcm"]
        or len(report.skipped) == 2
    )
    names = [str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")]
    assert not [name for name in names if "Doe" in name or "secret" in name or name.endswith(".csv")]
    for kept in (report.secret, report.originals):
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert kept.parent == tmp_path
    assert "Doe_Jane.dcm" in report.originals.read_text()
    again = deidentify_folder([tmp_path / "in"], tmp_path / "out2", secret=report.secret)
    assert [file.file for file in again.files] == [file.file for file in report.files]


def test_the_secret_may_not_lie_in_what_leaves(tmp_path: Path) -> None:
    scan().save_as(tmp_path / "a.dcm")
    with pytest.raises(DataError, match="would lie in"):
        deidentify_folder([tmp_path / "a.dcm"], tmp_path / "out", secret=tmp_path / "out" / "key")
    (tmp_path / "letter.txt").write_text("Dear")
    with pytest.raises(DataError, match="Not one DICOM image"):
        deidentify_folder([tmp_path / "letter.txt"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command(tmp_path: Path) -> None:
    scan(BurnedInAnnotation="YES").save_as(tmp_path / "a.dcm")
    result = CliRunner().invoke(
        app, ["data", "deidentify", str(tmp_path / "a.dcm"), str(tmp_path / "out"), "--json"]
    )
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["images"] == 1
    assert "Burned In Annotation" in told["suspected"][0]["reasons"][0]


def test_import_keeps_de_identified_copies_and_the_secret(tmp_path: Path) -> None:
    (tmp_path / "in" / "ill").mkdir(parents=True)
    (tmp_path / "in" / "well").mkdir()
    scan().save_as(tmp_path / "in" / "ill" / "Doe_Jane.dcm")
    scan(PatientID="MRN-4712", SOPInstanceUID="1.2.3.4.7").save_as(tmp_path / "in" / "well" / "Roe.dcm")

    report = import_images([tmp_path / "in"], tmp_path / "out", deidentify=True)

    assert sorted(record.label for record in report.manifest) == ["ill", "well"]
    for record in report.manifest:
        stored = tmp_path / "out" / record.file
        assert dcmread(stored).PatientIdentityRemoved == "YES"
        assert not any(word.encode() in stored.read_bytes() for word in TELLING)
        assert not any(word in record.image_id + record.group for word in ("Doe", "Roe", "MRN"))
        assert (record.age, record.sex) == (59, "female")
    secret = tmp_path / "out" / "pseudonyms.secret"
    before, groups = secret.read_bytes(), {record.group for record in report.manifest}
    again = import_images([tmp_path / "in"], tmp_path / "out", overwrite=True)
    assert secret.read_bytes() == before
    assert {record.group for record in again.manifest} == groups


@pytest.mark.real
def test_real_files_keep_their_pixels_and_lose_their_names(tmp_path: Path, shared_data: Path) -> None:
    report = deidentify_folder([shared_data / "dicom"], tmp_path / "out")

    assert len(report.files) == 4
    assert sum("same image" in reason for _, reason in report.skipped) == 3
    for file in report.files:
        old, new = dcmread(file.original), dcmread(tmp_path / "out" / file.file)
        assert np.array_equal(read_image(file.original), read_image(tmp_path / "out" / file.file))
        assert not [element for element in new.iterall() if element.tag.is_private]
        raw = (tmp_path / "out" / file.file).read_bytes()
        for keyword in (
            "PatientID",
            "PatientName",
            "SOPInstanceUID",
            "StudyInstanceUID",
            "InstitutionAddress",
        ):
            value = str(old.get(keyword) or "")
            assert not value or value.encode() not in raw, (file.original, keyword)
        assert dicom.modality(new) == dicom.modality(old)
