"""DICOM pixels and header facts, on made and on real files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from fedlens.errors import UnreadableImageError
from fedlens.imaging import dicom
from fedlens.imaging.formats import decode, read_image
from fedlens.imaging.pseudonyms import Pseudonyms

HOME = Pseudonyms(b"1" * 32)
MR_SMALL = ["MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_jp2klossless.dcm"]


def made(values: npt.NDArray[np.generic], **tags: object) -> Dataset:
    """A DICOM data set around grey values (H, W) or (frames, H, W)."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.SOPInstanceUID = generate_uid()
    dataset.Rows, dataset.Columns = values.shape[-2:]
    if values.ndim == 3:
        dataset.NumberOfFrames = values.shape[0]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = values.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.PixelData = values.tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


def written(dataset: Dataset) -> bytes:
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def ramp() -> npt.NDArray[np.int16]:
    return np.arange(-300, 300, dtype=np.int16).reshape(20, 30)


def test_without_window_the_values_are_stretched() -> None:
    shown = decode(written(made(ramp())), "a.dcm").pixels
    assert shown.dtype == np.uint8
    assert np.abs(shown - (ramp() + 300) / 599 * 255).max() <= 0.51


def test_window_applies_to_rescaled_values_and_clips() -> None:
    tags = {"RescaleSlope": 2, "RescaleIntercept": 100, "WindowCenter": 100.5, "WindowWidth": 201}
    shown = decode(written(made(ramp(), **tags)), "a.dcm").pixels
    # PS3.3 C.11.2.1.2: linear from centre - 0.5 - (width - 1) / 2, here 0, to 200.
    wanted = np.clip((ramp() * 2.0 + 100) / 200, 0, 1) * 255
    assert np.abs(shown - wanted).max() <= 1


def test_monochrome1_is_inverted() -> None:
    plain = decode(written(made(ramp())), "a.dcm").pixels
    inverted = decode(written(made(ramp(), PhotometricInterpretation="MONOCHROME1")), "a.dcm").pixels
    assert np.array_equal(inverted, 255 - plain)


def test_padding_does_not_squeeze_the_contrast() -> None:
    values = ramp().copy()
    values[0, :3] = -32768
    shown = decode(written(made(values, PixelPaddingValue=-32768)), "a.dcm").pixels
    assert shown[0, 0] == 0
    assert shown[10, 0] > 100


def test_senseless_window_is_left_alone() -> None:
    tags = {"WindowCenter": 0, "WindowWidth": 0}
    assert np.array_equal(
        decode(written(made(ramp(), **tags)), "a.dcm").pixels, decode(written(made(ramp())), "a.dcm").pixels
    )


def test_colour_stays_colour() -> None:
    values = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    dataset = made(values[..., 0], SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    dataset.PixelData = values.tobytes()
    assert np.array_equal(decode(written(dataset), "a.dcm").pixels, values)


def test_frames_are_told_apart(tmp_path: Path) -> None:
    frames = np.stack([ramp(), ramp()[::-1], ramp()[:, ::-1]])
    (tmp_path / "cine.dcm").write_bytes(written(made(frames)))
    assert dicom.frame_count(dcmread(tmp_path / "cine.dcm")) == 3
    assert np.array_equal(read_image(tmp_path / "cine.dcm", 1), read_image(tmp_path / "cine.dcm", 0)[::-1])
    with pytest.raises(UnreadableImageError):
        read_image(tmp_path / "cine.dcm", 3)


def test_bare_data_set_without_preamble_is_read() -> None:
    dataset = made(ramp())
    stream = io.BytesIO()
    del dataset.file_meta
    dataset.save_as(stream, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert dicom.is_dicom(stream.getvalue())
    assert dicom.parse(stream.getvalue(), "a").file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    assert np.array_equal(decode(stream.getvalue(), "a").pixels, decode(written(made(ramp())), "a").pixels)


def test_no_pixels_and_too_few_pixels_are_named() -> None:
    report = made(ramp())
    del report.PixelData
    with pytest.raises(UnreadableImageError, match="without pixel data"):
        decode(written(report), "report.dcm")
    with pytest.raises(UnreadableImageError, match="damaged DICOM"):
        decode(written(made(ramp()))[:-200], "cut.dcm")


def test_facts_hold_no_identifier() -> None:
    tags = {
        "PatientID": "MRN-4711",
        "PatientName": "Doe^Jane",
        "PatientAge": "018M",
        "PatientSex": "F",
        "Modality": "DX",
        "InstitutionName": "St. Elsewhere",
    }
    facts = dicom.facts(made(ramp(), **tags), HOME)
    assert (facts.modality, facts.age, facts.sex) == ("xray", 1.5, "female")
    assert facts.patient == dicom.facts(made(ramp()[::-1].copy(), PatientID="MRN-4711"), HOME).patient
    assert facts.patient != dicom.facts(made(ramp(), PatientID="MRN-4712"), HOME).patient
    assert not any(word in repr(facts) for word in ("4711", "Doe", "Elsewhere"))


def test_facts_of_an_empty_header_are_empty() -> None:
    assert dicom.facts(made(ramp()), HOME) == dicom.DicomFacts("", "other", "", None, "")


def test_patients_of_two_hospitals_are_not_told_to_be_one() -> None:
    tags = {"PatientID": "MRN-4711", "InstitutionName": "St. Elsewhere"}
    here = dicom.facts(made(ramp(), **tags), HOME)
    there = dicom.facts(made(ramp(), **tags), Pseudonyms(b"2" * 32))
    assert here.patient != there.patient
    assert here.site != there.site


ONE_SLICE = [
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "MR_small_padded.dcm",
]


@pytest.mark.parametrize("name", ONE_SLICE[1:])
def test_every_lossless_encoding_gives_the_same_slice(name: str) -> None:
    plain, other = (
        read_image(Path(get_testdata_file(file, download=False))) for file in (ONE_SLICE[0], name)
    )
    assert np.array_equal(plain, other)


COLOUR_BARS = {
    "SC_rgb_rle.dcm": 1,
    "SC_rgb_rle_16bit.dcm": 1,
    "SC_rgb_gdcm_KY.dcm": 1,
    "SC_rgb_jpeg_gdcm.dcm": 1,
    "SC_rgb_dcmtk_+eb+cr.dcm": 8,
    "SC_rgb_dcmtk_+eb+cy+np.dcm": 12,
    "SC_rgb_jpeg_dcmtk.dcm": 8,
    "SC_rgb_jls_lossy_line.dcm": 4,
    "SC_ybr_full_422_uncompressed.dcm": 8,
}


@pytest.mark.parametrize(("name", "tolerance"), COLOUR_BARS.items())
def test_colour_comes_out_right_from_every_encoding(name: str, tolerance: int) -> None:
    """RLE, JPEG 2000, lossless JPEG (gdcm), JPEG in RGB and YBR, JPEG-LS, subsampled YBR: one picture."""
    shown = read_image(Path(get_testdata_file(name, download=False)))
    # The middles of the bars: red, pink, green, pale green, blue, pale blue, black, greys, white.
    red, green, blue, black, white = (shown[row, 50].astype(int) for row in (5, 25, 45, 65, 95))
    for found, wanted in [
        (red, (255, 0, 0)),
        (green, (0, 255, 0)),
        (blue, (0, 0, 255)),
        (black, (0, 0, 0)),
        (white, (255, 255, 255)),
    ]:
        assert np.abs(found - wanted).max() <= tolerance, (name, found, wanted)


def test_palette_colour_deflated_and_cine_are_read() -> None:
    palette, deflated, cine = (
        Path(get_testdata_file(name, download=False))
        for name in ("examples_palette.dcm", "image_dfl.dcm", "examples_ybr_color.dcm")
    )
    assert read_image(palette).shape == (350, 800, 3)
    assert read_image(deflated).shape == (512, 512)
    assert dicom.frame_count(dcmread(cine)) == 30
    first, last = read_image(cine, 0), read_image(cine, 29)
    assert first.shape == last.shape == (240, 320, 3)
    assert not np.array_equal(first, last)


def test_lossy_jpeg_of_twelve_bits_is_named_as_unreadable() -> None:
    with pytest.raises(UnreadableImageError, match="12-bit"):
        read_image(Path(get_testdata_file("JPGExtended.dcm", download=False)))


@pytest.mark.real
def test_every_real_file_reads(shared_data: Path) -> None:
    files = sorted((shared_data / "dicom").glob("*.dcm"))
    assert len(files) == 7
    for file in files:
        header = dcmread(file, stop_before_pixels=True)
        shown = read_image(file)
        assert shown.shape == (header.Rows, header.Columns), file
        assert shown.std() > 20, file


@pytest.mark.real
def test_one_slice_in_four_encodings_is_one_image(shared_data: Path) -> None:
    plain, *others = [read_image(shared_data / "dicom" / name) for name in MR_SMALL]
    assert all(np.array_equal(plain, other) for other in others)


@pytest.mark.real
@pytest.mark.parametrize("name", ["gdcm-CR-MONO1-10-chest.dcm", "RG1_J2KI.dcm"])
def test_real_monochrome1_shows_little_exposure_bright(shared_data: Path, name: str) -> None:
    stored = dcmread(shared_data / "dicom" / name).pixel_array.astype(float)
    shown = read_image(shared_data / "dicom" / name).astype(float)
    assert np.corrcoef(stored.ravel(), shown.ravel())[0, 1] < -0.8
