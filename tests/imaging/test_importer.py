"""Importing: every file accounted for, and a study folder that is whole or not there."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from pathlib import Path

import gdcm
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from fedlens.errors import DataError, LayoutError, SettingsError
from fedlens.imaging import importer as importer_module
from fedlens.imaging.formats import read_image, read_mask, read_record
from fedlens.imaging.importer import ImportReport, import_images
from fedlens.imaging.inspection import Inspected, Inspector
from fedlens.imaging.layouts import FoundImage
from fedlens.imaging.manifest import ImageRecord, load_manifest
from fedlens.imaging.store import Store, damaged_files


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (12, 10), np.uint8)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two classes of four small images, one outline."""
    for number in range(8):
        path = tmp_path / "set" / ("ill" if number % 2 else "well") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(number)).save(path)
    mask = tmp_path / "set/masks/ill/1.png"
    mask.parent.mkdir(parents=True)
    Image.fromarray(pixels(1) > 128).save(mask)
    return tmp_path / "set"


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def record_of(report: ImportReport, name: str) -> ImageRecord:
    return next(record for record in report.manifest if record.image_id.endswith(name))


def told(report: ImportReport) -> dict[str, tuple[str, str]]:
    return {Path(problem.file).name: (problem.kind, problem.reason) for problem in report.problems}


def test_references_leave_originals_and_pixels_alone(source: Path, tmp_path: Path) -> None:
    before, calls = snapshot(source), []
    report = import_images([source], tmp_path / "out", progress=lambda *call: calls.append(call))
    assert snapshot(source) == before
    assert load_manifest(tmp_path / "out") == report.manifest
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["import.json", "manifest.parquet"]
    record = record_of(report, "ill/1.png")
    assert record.file == str(source / "ill/1.png")
    assert (record.image_id, record.group, record.label) == ("set/ill/1.png", "set/ill/1.png", "ill")
    assert (record.width, record.height, record.modality, record.source) == (10, 12, "other", "set")
    assert np.array_equal(read_record(report.manifest, record), pixels(1))
    mask = report.manifest.mask_path(record)
    assert mask is not None
    assert np.array_equal(read_mask(mask), pixels(1) > 128)
    assert calls[0] == ("import set", 0, 8)
    assert calls[-1] == ("import set", 8, 8)


def test_copies_need_the_originals_no_more(source: Path, tmp_path: Path) -> None:
    report = import_images([source], tmp_path / "out", copy=True)
    shutil.rmtree(source)
    for record in report.manifest:
        assert record.file == f"store/{record.sha256[:2]}/{record.sha256}.png"
        assert np.array_equal(read_record(report.manifest, record), pixels(int(Path(record.image_id).stem)))
    mask = report.manifest.mask_path(record_of(report, "ill/1.png"))
    assert mask is not None
    assert np.array_equal(read_mask(mask), pixels(1) > 128)
    assert damaged_files(tmp_path / "out") == ()


def test_every_awkward_file_is_handled_or_named(source: Path, tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))
    ill = source / "ill"
    exif = Image.Exif()
    exif[0x0112] = 6
    noise.save(ill / "turned.jpg", exif=exif)
    noise.save(ill / "whole.jpg")
    noise.convert("CMYK").save(ill / "cmyk.jpg")
    noise.quantize(8).save(ill / "palette.png")
    noise.convert("RGBA").save(ill / "alpha.png")
    noise.save(ill / "really_jpeg.png", "JPEG")
    noise.save(ill / "no_extension", "PNG")
    Image.fromarray(np.arange(0, 60000, 100, dtype=np.uint16).reshape(20, 30)).save(ill / "deep.png")
    (ill / "cut.jpg").write_bytes((ill / "whole.jpg").read_bytes()[:900])
    (ill / "empty.png").touch()
    (ill / "text.png").write_text("no image")
    (ill / "volume.nii").write_bytes(bytes(400))
    (ill / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (ill / "notes.txt").write_text("ignored")
    report = import_images([source], tmp_path / "out")
    imported = {Path(record.image_id).name for record in report.manifest}
    problems = told(report)
    skipped = {name for name, (kind, _) in problems.items() if kind == "skipped"}
    handled = {name for name, (kind, _) in problems.items() if kind == "handled"}
    assert skipped == {"cut.jpg", "empty.png", "text.png", "volume.nii", "gone.png"}
    assert handled == {
        "turned.jpg", "cmyk.jpg", "palette.png", "alpha.png", "really_jpeg.png", "deep.png", "no_extension",
    }  # fmt: skip
    on_disk = {path.name for path in ill.iterdir()} - {"notes.txt"}
    assert on_disk == {
        name for name in imported | skipped if (ill / name).is_symlink() or (ill / name).exists()
    }
    assert imported.isdisjoint(skipped)
    assert problems["really_jpeg.png"][1] == "is a JPEG despite its name"
    assert problems["cut.jpg"][1].startswith("truncated")
    assert problems["empty.png"][1] == "the file is empty"
    turned = record_of(report, "turned.jpg")
    assert (turned.width, turned.height) == (40, 50)
    assert report.ignored == {".txt": 1}
    for record in report.manifest:
        assert read_record(report.manifest, record).shape[:2] == (record.height, record.width)


def test_masks_that_do_not_fit_leave_the_image_without(source: Path, tmp_path: Path) -> None:
    masks = source / "masks/ill"
    Image.fromarray(np.ones((5, 6), bool)).save(masks / "3.png")
    Image.fromarray(np.zeros((12, 10), bool)).save(masks / "5.png")
    (masks / "7.png").write_bytes(b"\x89PNG broken")
    report = import_images([source], tmp_path / "out")
    assert len(report.manifest) == 8
    assert [record.image_id for record in report.manifest if record.mask] == ["set/ill/1.png"]
    problems = told(report)
    assert problems["3.png"] == ("handled", "6x5 outline of an image of 10x12; image imported without it")
    assert problems["5.png"][1].startswith("empty outline")
    assert problems["7.png"][1].startswith("damaged")


def test_report_is_written_and_readable(source: Path, tmp_path: Path) -> None:
    (source / "ill/empty.png").touch()
    report = import_images([source], tmp_path / "out")
    written = json.loads((tmp_path / "out/import.json").read_text())
    assert written == report.as_dict()
    assert written["sources"]["set"]["labels"] == {"ill": 4, "well": 4}
    assert written["problems"] == [
        {"file": str(source / "ill/empty.png"), "reason": "the file is empty", "kind": "skipped"}
    ]
    summary = report.summary()
    for text in ("8 images imported", "read as class folders", "Skipped: 1", "1 x the file is empty"):
        assert text in summary


def test_repeated_names_are_numbered_and_given_names_used(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "set"
    shutil.copytree(source, other)
    report = import_images([source, other], tmp_path / "out")
    assert list(report.layouts) == ["set", "set-2"]
    assert len({record.group for record in report.manifest}) == 16
    named = import_images([source], tmp_path / "named", name="clinic-1")
    assert {record.source for record in named.manifest} == {"clinic-1"}
    with pytest.raises(SettingsError, match="clinic/1"):
        import_images([source], tmp_path / "bad", name="clinic/1")


def test_groups_override_and_unmatched_rows_are_named(source: Path, tmp_path: Path) -> None:
    table = tmp_path / "groups.csv"
    rows = ["set/ill/1.png,p1", "set/ill/3.png,p1", "set/ill/5.png,", "set/ill/99.png,p2"]
    table.write_text("\n".join(["image,Who", *rows]))
    report = import_images([source], tmp_path / "out", groups=f"{table}:image:who")
    assert record_of(report, "ill/1.png").group == record_of(report, "ill/3.png").group == "set:p1"
    assert record_of(report, "ill/5.png").group == "set/ill/5.png"
    assert told(report) == {"99.png": ("skipped", "has a group, but was not imported")}
    for wrong, message in [(f"{table}:image:nobody", "no column 'nobody'"), (str(table), "not of the form")]:
        with pytest.raises(SettingsError, match=message):
            import_images([source], tmp_path / "wrong", groups=wrong)


def test_medmnist_images_are_stored(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 3), np.uint8)
    np.savez(tmp_path / "dermamnist.npz", train_images=images, train_labels=np.array([[0], [1], [1], [6]]))
    report = import_images([tmp_path / "dermamnist.npz"], tmp_path / "out")
    assert [record.label for record in report.manifest] == ["0", "1", "1", "6"]
    assert report.manifest.records[3].image_id == "dermamnist/train_images#3"
    for record, image in zip(report.manifest, images, strict=True):
        assert np.array_equal(read_record(report.manifest, record), image)
    assert damaged_files(tmp_path / "out") == ()


@pytest.mark.real
@pytest.mark.parametrize("copy", [False, True])
def test_real_dicoms(tmp_path: Path, shared_data: Path, copy: bool) -> None:
    report = import_images([shared_data / "dicom"], tmp_path / "out", copy=copy)
    assert report.skipped() == ()
    modalities = {Path(record.image_id).name: record.modality for record in report.manifest}
    assert [modalities.pop(name) for name in ("RG1_J2KI.dcm", "gdcm-CR-MONO1-10-chest.dcm")] == ["xray"] * 2
    assert list(modalities.values()) == ["mri"] * 5
    assert len({record.group for record in report.manifest if "MR_small" in record.image_id}) == 1
    brain = record_of(report, "bbmri-53323131.dcm")
    assert (brain.age, brain.sex) == (29.0, "male")
    kept = (tmp_path / "out/manifest.parquet").read_bytes() + (tmp_path / "out/import.json").read_bytes()
    identifiers = {dcmread(file).get("PatientID") for file in (shared_data / "dicom").glob("*.dcm")} - {
        None,
        "",
    }
    assert identifiers
    assert not any(identifier.encode() in kept for identifier in identifiers)


@pytest.mark.real
def test_multi_frame_dicom_and_one_without_pixels(tmp_path: Path, shared_data: Path) -> None:
    dataset = dcmread(shared_data / "dicom/MR_small.dcm")
    single = dataset.pixel_array
    (tmp_path / "scans").mkdir()
    dataset.save_as(tmp_path / "scans/one.dcm")
    dataset.NumberOfFrames = 3
    dataset.PixelData = np.stack([single, single[::-1], single.T]).tobytes()
    dataset.save_as(tmp_path / "scans/cine.dcm")
    del dataset.PixelData
    dataset.save_as(tmp_path / "scans/report.dcm")
    for copy in (False, True):
        report = import_images([tmp_path / "scans"], tmp_path / f"out-{copy}", copy=copy)
        ids = [record.image_id for record in report.manifest]
        assert ids == ["scans/cine.dcm#0", "scans/cine.dcm#1", "scans/cine.dcm#2", "scans/one.dcm"]
        first, second, _, one = (read_record(report.manifest, record) for record in report.manifest)
        assert np.array_equal(first, one)
        assert np.array_equal(second, one[::-1])
        assert told(report)["report.dcm"][1].startswith("DICOM without pixel data")


@pytest.mark.real
def test_pixels_that_crash_the_decoder_are_named_and_the_import_goes_on(
    tmp_path: Path, shared_data: Path
) -> None:
    (tmp_path / "scans").mkdir()
    good = tmp_path / "scans/good.dcm"
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(shared_data / "dicom/MR_small.dcm"))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLSLossless))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(good))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    dataset = dcmread(good)
    dataset.Rows = 128
    for name in ("bad.dcm", "worse.dcm"):
        dataset.save_as(tmp_path / "scans" / name)
    report = import_images([tmp_path / "scans"], tmp_path / "out")
    assert [record.image_id for record in report.manifest] == ["scans/good.dcm"]
    assert told(report) == dict.fromkeys(
        ("bad.dcm", "worse.dcm"), ("skipped", "damaged DICOM: its pixels crash the decoder")
    )
    plain = read_image(shared_data / "dicom/MR_small.dcm")
    assert np.array_equal(read_record(report.manifest, report.manifest.records[0]), plain)


@pytest.mark.real
def test_real_subsets_together(tmp_path: Path, shared_data: Path) -> None:
    picks = {"chest_xray": "*/*/*.jpeg", "brain_mri": "*/*/*.jpg", "ham10000": "images/*.jpg"}
    for name, pattern in picks.items():
        for file in sorted((shared_data / name).glob(pattern))[::300]:
            link = tmp_path / name / file.relative_to(shared_data / name)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
    (tmp_path / "ham10000/masks").symlink_to(shared_data / "ham10000/masks")
    (tmp_path / "brain_mri/masks").symlink_to(shared_data / "brain_mri/masks")
    shutil.copy(shared_data / "ham10000/HAM10000_metadata.csv", tmp_path / "ham10000")
    groups = f"{shared_data / 'brain_mri/index.csv'}:path:cluster"
    report = import_images([tmp_path / name for name in picks], tmp_path / "out", groups=groups)
    assert set(report.layouts.values()) == {"Kermany chest X-ray", "Nickparvar brain MRI", "HAM10000"}
    by_source = {name: [record for record in report.manifest if record.source == name] for name in picks}
    assert all(len(records) > 15 for records in by_source.values())
    assert all(record.mask for record in by_source["ham10000"])
    assert all(record.mask == "" for record in by_source["brain_mri"] if record.label == "notumor")
    assert any("cheng-series" in record.group for record in by_source["brain_mri"])
    assert all(record.group.startswith("chest_xray:") for record in by_source["chest_xray"])


def test_taken_folders_are_refused_untouched(source: Path, tmp_path: Path) -> None:
    import_images([source], tmp_path / "out")
    before = snapshot(tmp_path / "out")
    with pytest.raises(DataError, match="already holds a manifest"):
        import_images([source], tmp_path / "out")
    assert snapshot(tmp_path / "out") == before
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter.txt").write_text("dear")
    with pytest.raises(DataError, match="not empty"):
        import_images([source], tmp_path / "home", overwrite=True)
    with pytest.raises(DataError, match="inside each other"):
        import_images([source], source / "study")
    with pytest.raises(DataError, match="given twice"):
        import_images([source, source / "ill"], tmp_path / "twice")
    with pytest.raises(LayoutError):
        import_images([source / "ill"], tmp_path / "deep/flat")
    assert not (tmp_path / "deep").exists()


def test_overwriting_replaces_images_and_keeps_other_files(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    import_images([source], out, copy=True)
    (out / "study.toml").write_text("mine")
    (out / "audit.json").write_text("stale")
    (source / "ill/1.png").unlink()
    report = import_images([source], out, overwrite=True)
    assert load_manifest(out) == report.manifest
    assert len(report.manifest) == 7
    assert sorted(path.name for path in out.iterdir()) == ["import.json", "manifest.parquet", "study.toml"]
    assert not list(tmp_path.glob(".out*"))


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / "set" / label).mkdir(parents=True)
        (tmp_path / "set" / label / "1.png").touch()
    with pytest.raises(DataError, match="the file is empty"):
        import_images([tmp_path / "set"], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_full_disk_leaves_everything_as_it_was(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    if overwrite:
        import_images([source], tmp_path / "out")
    before = snapshot(tmp_path)
    real_add, added = Store.add, []

    def add(store: Store, content: bytes, suffix: str) -> str:
        if len(added) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        added.append(content)
        return real_add(store, content, suffix)

    monkeypatch.setattr(Store, "add", add)
    with pytest.raises(DataError, match="No space left"):
        import_images([source], tmp_path / "out", copy=True, overwrite=overwrite)
    assert len(added) == 3
    assert snapshot(tmp_path) == before
    assert not list(tmp_path.glob(".out*"))


def test_full_disk_at_the_last_file_leaves_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(importer_module, "write_json", full)
    with pytest.raises(DataError, match="No space left"):
        import_images([source], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_interrupt_leaves_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_inspect = Inspector.inspect

    def inspect(inspector: Inspector, found: FoundImage) -> Inspected:
        if found.name == "well/4.png":
            raise KeyboardInterrupt
        return real_inspect(inspector, found)

    monkeypatch.setattr(Inspector, "inspect", inspect)
    with pytest.raises(KeyboardInterrupt):
        import_images([source], tmp_path / "out", copy=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_what_a_killed_import_left_is_cleared(source: Path, tmp_path: Path) -> None:
    stale = tmp_path / ".out.part/store/ab"
    stale.mkdir(parents=True)
    (stale / "half.png").write_bytes(b"half")
    (tmp_path / ".out.part/.lock").touch()
    import_images([source], tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["import.json", "manifest.parquet"]
    assert not list(tmp_path.glob(".out*"))


def test_kill_between_the_two_renames_is_mended(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    import_images([source], out)
    (out / "study.toml").write_text("mine")
    out.rename(tmp_path / ".out.old")
    import_images([source], out)
    assert (out / "study.toml").read_text() == "mine"
    assert not list(tmp_path.glob(".out*"))


def test_a_living_import_is_not_disturbed(source: Path, tmp_path: Path) -> None:
    part = tmp_path / ".out.part"
    part.mkdir()
    (part / "half.png").write_bytes(b"half")
    with (part / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="Another import"):
            import_images([source], tmp_path / "out")
    assert (part / "half.png").read_bytes() == b"half"
