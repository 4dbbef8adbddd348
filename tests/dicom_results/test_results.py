"""Secondary Capture, Segmentation and Structured Report: content, references, and the standard's rules."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from highdicom import sr
from highdicom.seg import segread
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from typer.testing import CliRunner

from fedlens.cli.main import app
from fedlens.dicom_results.finding import Finding, class_code, orientation, source_header
from fedlens.dicom_results.report import structured_report
from fedlens.dicom_results.secondary_capture import secondary_capture
from fedlens.dicom_results.segmentation import segmentation
from fedlens.dicom_results.writing import write_results
from fedlens.errors import DataError, ExplanationError, SettingsError
from fedlens.explain.overlay import overlay
from fedlens.explain.saliency import SaliencyMap
from fedlens.imaging import dicom
from tests.dicom_results.conformance import errors_of
from tests.untrained_run import save_untrained

WHERE = {"series_uid": "1.2.3", "series_number": 9, "number": 1}
BUNDLED = [
    "MR_small.dcm",
    "CT_small.dcm",
    "SC_rgb_jpeg.dcm",
    "examples_ybr_color.dcm",
    "examples_overlay.dcm",
]
REAL = ["MR_small_bigendian.dcm", "bbmri-53323131.dcm", "gdcm-CR-MONO1-10-chest.dcm", "RG1_J2KI.dcm"]


def bundled(name: str) -> Path:
    return Path(get_testdata_file(name, download=False))


def saliency(*, empty: bool = False) -> SaliencyMap:
    """Heat in the upper left quarter of the image."""
    values = np.zeros((8, 8), np.float32)
    if not empty:
        values[1:3, 1:3] = 1.0
    return SaliencyMap(
        values=values,
        target=1,
        probabilities=(("NORMAL", 0.25), ("PNEUMONIA or something with a long name", 0.75)),
        layer="last",
        fingerprint="f" * 64,
        file="scan.dcm",
        reproduce={"weights_sha256": "a" * 64, "model": "efdl-cnn"},
    )


def finding(path: Path, *, empty: bool = False, frame: int = 0) -> Finding:
    dataset = dicom.parse(path.read_bytes(), str(path))
    return Finding(
        source=source_header(dataset, str(path)),
        pixels=dicom.pixels(dataset, frame, str(path)),
        saliency=saliency(empty=empty),
        threshold=0.5,
        model="efdl-cnn",
        frame=frame,
    )


def objects(found: Finding, *, fractional: bool = False) -> dict[str, Dataset]:
    region = None if found.saliency.empty else segmentation(found, fractional=fractional, **WHERE)
    made = {"sc": secondary_capture(found, **WHERE), "sr": structured_report(found, region, **WHERE)}
    return made if region is None else {**made, "seg": region}


@pytest.mark.filterwarnings("ignore:The string")
@pytest.mark.parametrize("name", BUNDLED)
@pytest.mark.parametrize("kind", ["binary", "fractional", "empty"])
def test_the_standards_checker_finds_no_error(name: str, kind: str, tmp_path: Path) -> None:
    found = finding(bundled(name), empty=kind == "empty")
    for what, made in objects(found, fractional=kind == "fractional").items():
        made.save_as(tmp_path / f"{what}.dcm", enforce_file_format=True)
        assert errors_of(tmp_path / f"{what}.dcm") == [], what


@pytest.mark.real
@pytest.mark.filterwarnings("ignore:The string")
@pytest.mark.parametrize("name", REAL)
def test_nor_does_it_in_results_of_real_images(name: str, shared_data: Path, tmp_path: Path) -> None:
    for what, made in objects(finding(shared_data / "dicom" / name)).items():
        made.save_as(tmp_path / f"{what}.dcm", enforce_file_format=True)
        assert errors_of(tmp_path / f"{what}.dcm") == [], what


def test_all_belong_to_the_study_and_patient_of_their_image() -> None:
    found = finding(bundled("MR_small.dcm"))
    for what, made in objects(found).items():
        for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "StudyDate", "AccessionNumber"):
            assert str(made[keyword].value) == str(found.source[keyword].value), (what, keyword)
        assert made.SeriesInstanceUID != found.source.SeriesInstanceUID
        assert made.SOPInstanceUID != found.source.SOPInstanceUID
    assert objects(found)["seg"].FrameOfReferenceUID == found.source.FrameOfReferenceUID


def test_the_capture_is_the_overlay_and_names_its_source() -> None:
    found = finding(bundled("MR_small.dcm"))
    made = secondary_capture(found, **WHERE)

    assert np.array_equal(made.pixel_array, overlay(found.pixels, found.saliency.values))
    [source] = made.SourceImageSequence
    assert source.ReferencedSOPInstanceUID == found.source.SOPInstanceUID
    assert list(made.PatientOrientation) == ["L", "P"]
    assert "Not a diagnosis" in made.DerivationDescription


def test_the_segmentation_lies_on_the_sources_pixels(tmp_path: Path) -> None:
    found = finding(bundled("CT_small.dcm"))
    segmentation(found, **WHERE).save_as(tmp_path / "seg.dcm", enforce_file_format=True)

    read = segread(tmp_path / "seg.dcm")
    pixels = read.get_pixels_by_source_instance([found.source.SOPInstanceUID])[0, :, :, 0]
    heat = cv2.resize(found.saliency.values, (128, 128), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(pixels.astype(bool), heat >= 0.5 * heat.max())
    # Heat at columns and rows 1 and 2 of 8 is at 16 to 48 of 128.
    rows, columns = np.nonzero(pixels)
    assert abs(rows.min() - 16) <= 1
    assert abs(columns.max() - 47) <= 1
    [segment] = read.SegmentSequence
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    assert segment.TrackingUID == found.region_uid


def test_the_fractional_one_keeps_the_heat() -> None:
    found = finding(bundled("MR_small.dcm"))
    made = segmentation(found, fractional=True, **WHERE)

    wanted = np.where(found.region(), found.heat(), 0)
    assert np.abs(made.pixel_array / made.MaximumFractionalValue - wanted).max() <= 0.5 / 255 + 1e-6


def test_a_cines_results_name_the_frame() -> None:
    found = finding(bundled("examples_ybr_color.dcm"), frame=7)
    made = objects(found)

    assert made["sc"].SourceImageSequence[0].ReferencedFrameNumber == 8
    [group] = made["seg"].PerFrameFunctionalGroupsSequence
    [source] = group.DerivationImageSequence[0].SourceImageSequence
    assert source.ReferencedFrameNumber == 8
    assert source.ReferencedSOPClassUID == found.source.SOPClassUID
    assert source.ReferencedSOPInstanceUID == found.source.SOPInstanceUID


def test_the_report_says_class_probabilities_algorithm_and_where(tmp_path: Path) -> None:
    found = finding(bundled("MR_small.dcm"))
    made = objects(found)
    made["sr"].save_as(tmp_path / "sr.dcm", enforce_file_format=True)

    read = sr.srread(tmp_path / "sr.dcm")
    [group] = read.content.get_planar_roi_measurement_groups()
    assert group.finding_type.meaning == found.saliency.target_name
    measured = {item.name.meaning: item.value for item in group.get_measurements()}
    assert measured == {f"Probability of {name}": chance for name, chance in found.saliency.probabilities}
    assert group.tracking_uid == found.region_uid
    text = str(read)
    for uid in (found.source.SOPInstanceUID, made["seg"].SOPInstanceUID):
        assert uid in text
    assert "FedLens efdl-cnn" in text
    assert (read.CompletionFlag, read.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    listed = {
        item.ReferencedSOPInstanceUID
        for study in read.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert listed == {found.source.SOPInstanceUID, made["seg"].SOPInstanceUID}


def test_an_empty_map_has_a_report_and_no_segmentation() -> None:
    found = finding(bundled("MR_small.dcm"), empty=True)
    with pytest.raises(ValueError, match="empty"):
        segmentation(found, **WHERE)
    report = structured_report(found, None, **WHERE)
    assert found.source.SOPInstanceUID in str(report)


def test_what_cannot_be_referred_to_and_what_does_not_fit_is_refused() -> None:
    dataset = dcmread(bundled("MR_small.dcm"))
    del dataset.StudyInstanceUID
    with pytest.raises(DataError, match="No result can refer"):
        source_header(dataset, "scan.dcm")
    good = finding(bundled("MR_small.dcm"))
    with pytest.raises(ExplanationError, match="pixels"):
        Finding(good.source, good.pixels[1:], good.saliency, 0.5, "m")
    with pytest.raises(ExplanationError, match="threshold"):
        Finding(good.source, good.pixels, good.saliency, 0.0, "m")


def test_codes_and_orientation_keep_to_their_formats() -> None:
    assert class_code("PNEUMONIA").value == "PNEUMONIA"
    long = class_code("a class with a name of more than sixteen letters")
    assert len(long.value) == 16
    assert long == class_code("a class with a name of more than sixteen letters")
    header = Dataset()
    assert orientation(header) is None
    header.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    assert orientation(header) == ["P", "F"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with untrained weights."""
    return save_untrained(tmp_path / "run", ("NORMAL", "PNEUMONIA"))


def test_the_command_writes_one_series_of_a_kind_for_a_study(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in range(2):
        dataset = dcmread(bundled("MR_small.dcm"))
        dataset.SOPInstanceUID = f"1.2.3.{number + 1}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(folder / f"{number}.dcm")
    out = tmp_path / "out"

    result = CliRunner().invoke(app, ["pacs", "results", str(run), str(folder), "--out", str(out), "--json"])

    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert [Path(image["image"]).name for image in told["images"]] == ["0.dcm", "1.dcm"]
    made = [dcmread(file) for file in sorted(out.glob("*.dcm"))]
    assert len(made) == sum(len(image["files"]) for image in told["images"])
    for kind in ("OT", "SEG", "SR"):
        series = [item for item in made if item.Modality == kind]
        assert len({item.SeriesInstanceUID for item in series}) <= 1
    with pytest.raises(DataError, match="already"):
        write_results(run, [folder], out)


def test_other_images_and_bad_thresholds_are_refused_before_anything_is_written(
    run: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match="no DICOM file"):
        write_results(run, [bundled("MR_small.dcm"), tmp_path / "a.png"], tmp_path / "out")
    with pytest.raises(SettingsError, match="threshold"):
        write_results(run, [bundled("MR_small.dcm")], tmp_path / "out", threshold=2)
    assert not (tmp_path / "out").exists()
