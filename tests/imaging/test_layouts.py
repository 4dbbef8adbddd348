"""Recognising each layout, and nothing else in its place."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedlens.errors import DataError, LayoutError
from fedlens.imaging.layouts import Listing, recognise
from fedlens.imaging.layouts.kermany import patient_key


def draw(*paths: Path) -> None:
    """A different small grey image at each path."""
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 9), number % 256, np.uint8)).save(path)


def names(listing: Listing) -> list[str]:
    return [image.name for image in listing.images]


def by_name(listing: Listing) -> dict[str, tuple[str, str]]:
    return {image.name: (image.label, image.patient) for image in listing.images}


def reasons(listing: Listing) -> dict[str, str]:
    return {Path(problem.file).name: problem.reason for problem in listing.problems}


@pytest.mark.parametrize(
    ("file", "patient"),
    [
        ("person12_virus_3.jpeg", "person12"),
        ("person1_bacteria_1.jpeg", "person1"),
        ("IM-0115-0001.jpeg", "IM-0115"),
        ("IM-0115-0001-0002.jpeg", "IM-0115"),
        ("NORMAL2-IM-0536-0001.jpeg", "NORMAL2-IM-0536"),
        ("NORMAL2-IM-0536-0001-0002.jpeg", "NORMAL2-IM-0536"),
        ("BACTERIA-1008087-0001.jpeg", "BACTERIA-1008087"),
        ("scan.jpeg", ""),
    ],
)
def test_patient_in_chest_file_names(file: str, patient: str) -> None:
    assert patient_key(file) == patient


@pytest.mark.real
def test_patients_agree_with_the_index_on_every_chest_file(shared_data: Path) -> None:
    with (shared_data / "chest_xray" / "index.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) > 5000
    assert [row for row in rows if patient_key(Path(row["path"]).name) != row["patient_key"]] == []


def test_kermany(tmp_path: Path) -> None:
    draw(
        tmp_path / "train/NORMAL/IM-0115-0001.jpeg",
        tmp_path / "test/PNEUMONIA/person7_virus_2.jpeg",
        tmp_path / "val/PNEUMONIA/unnamed.jpeg",
        tmp_path / "cover.jpeg",
    )
    (tmp_path / "train/.DS_Store").touch()
    listing = recognise(tmp_path)
    assert (listing.layout, listing.source, listing.modality) == ("Kermany chest X-ray", "chest_xray", "xray")
    assert by_name(listing) == {
        "train/NORMAL/IM-0115-0001.jpeg": ("NORMAL", "IM-0115"),
        "test/PNEUMONIA/person7_virus_2.jpeg": ("PNEUMONIA", "person7"),
        "val/PNEUMONIA/unnamed.jpeg": ("PNEUMONIA", ""),
    }
    assert [image.subtype for image in listing.images] == ["virus", "", ""]
    assert set(reasons(listing)) == {"cover.jpeg", "unnamed.jpeg"}
    assert listing.ignored == {".DS_Store": 1}
    assert "not used" in listing.notes[0]


def test_kermany_download_that_holds_itself_twice(tmp_path: Path) -> None:
    places = ["train/NORMAL/IM-0001-0001.jpeg", "train/PNEUMONIA/person1_virus_1.jpeg"]
    draw(*(tmp_path / "chest_xray" / place for place in places))
    draw(*(tmp_path / "chest_xray/chest_xray" / place for place in places))
    draw(tmp_path / "chest_xray/chest_xray/test/NORMAL/IM-0002-0001.jpeg")
    junk = tmp_path / "chest_xray/__MACOSX/train/._IM-0001-0001.jpeg"
    junk.parent.mkdir(parents=True)
    junk.write_bytes(b"\0\5\x16\7")
    listing = recognise(tmp_path)
    assert names(listing) == ["chest_xray/test/NORMAL/IM-0002-0001.jpeg", *places]
    assert "second copy of itself: 2 files" in listing.problems[0].reason
    assert listing.ignored == {"__MACOSX": 1}


def test_kermany_only_nested(tmp_path: Path) -> None:
    draw(
        tmp_path / "chest_xray/chest_xray/train/NORMAL/IM-0001-0001.jpeg",
        tmp_path / "chest_xray/chest_xray/test/PNEUMONIA/person1_virus_1.jpeg",
    )
    listing = recognise(tmp_path)
    assert listing.source == "chest_xray"
    assert listing.total == 2
    assert listing.problems == ()


def test_chest_folders_with_a_third_class_are_no_kermany(tmp_path: Path) -> None:
    draw(*(tmp_path / "train" / label / "a.png" for label in ("NORMAL", "PNEUMONIA", "COVID")))
    listing = recognise(tmp_path)
    assert listing.layout == "class folders"
    assert {image.label for image in listing.images} == {"NORMAL", "PNEUMONIA", "COVID"}


def test_nickparvar_with_masks_and_without_its_index(tmp_path: Path) -> None:
    draw(
        tmp_path / "Training/glioma/Tr-gl_0001.jpg",
        tmp_path / "Testing/notumor/Te-no_0001.jpg",
        tmp_path / "masks/Training/glioma/Tr-gl_0001.png",
        tmp_path / "masks/Training/glioma/Tr-gl_0002.png",
    )
    index = tmp_path / "index.csv"
    index.write_text("path,label,cluster\nTraining/glioma/Tr-gl_0001.jpg,wrong,one\n")
    listing = recognise(tmp_path)
    assert (listing.layout, listing.source, listing.modality) == ("Nickparvar brain MRI", "brain_mri", "mri")
    assert by_name(listing) == {
        "Testing/notumor/Te-no_0001.jpg": ("notumor", ""),
        "Training/glioma/Tr-gl_0001.jpg": ("glioma", ""),
    }
    masks = [image.mask for image in listing.images]
    assert masks == [None, tmp_path / "masks/Training/glioma/Tr-gl_0001.png"]
    assert reasons(listing) == {"Tr-gl_0002.png": "outline of an image that is not there"}


def ham_table(path: Path, *image_ids: str) -> None:
    rows = [f"HAM_1,{image_id},mel,histo,45.0,female,scalp" for image_id in image_ids]
    path.write_text("lesion_id,image_id,dx,dx_type,age,sex,localization\n" + "\n".join(rows))


@pytest.mark.parametrize("table", ["HAM10000_metadata.csv", "HAM10000_metadata"])
def test_ham10000_in_two_parts(tmp_path: Path, table: str) -> None:
    ham_table(tmp_path / table, "ISIC_1", "ISIC_2", "ISIC_4")
    draw(
        tmp_path / "HAM10000_images_part_1/ISIC_1.jpg",
        tmp_path / "HAM10000_images_part_2/ISIC_2.jpg",
        tmp_path / "ham10000_images_part_2/ISIC_2.jpg",
        tmp_path / "HAM10000_images_part_2/ISIC_3.jpg",
        tmp_path / "HAM10000_segmentations_lesion_tschandl/ISIC_2_segmentation.png",
    )
    listing = recognise(tmp_path)
    assert (listing.layout, listing.source, listing.modality) == ("HAM10000", "ham10000", "dermoscopy")
    assert set(by_name(listing).values()) == {("mel", "HAM_1")}
    one, two = listing.images
    assert (one.age, one.sex, one.site, one.mask) == (45.0, "female", "", None)
    assert two.mask is not None
    assert reasons(listing) == {
        "ISIC_2.jpg": "second file of an image already listed",
        "ISIC_3.jpg": f"has no row in {table}",
        "ISIC_4.jpg": f"is in {table}, but there is no such image",
    }


@pytest.mark.real
def test_the_real_sets_are_recognised_wholly(shared_data: Path) -> None:
    totals = {}
    for name in ("chest_xray", "brain_mri", "ham10000", "dicom"):
        listing = recognise(shared_data / name)
        assert listing.source == name
        assert listing.problems == ()
        totals[name] = listing.total
    assert totals == {"chest_xray": 5209, "brain_mri": 6293, "ham10000": 9056, "dicom": 7}


def test_class_folders_with_and_without_splits(tmp_path: Path) -> None:
    draw(tmp_path / "a/cat/1.png", tmp_path / "a/dog/deep/2.png", tmp_path / "a/3.png")
    draw(tmp_path / "b/Train/cat/1.png", tmp_path / "b/valid/dog/2.png")
    plain, split = recognise(tmp_path / "a"), recognise(tmp_path / "b")
    assert (plain.layout, plain.source, plain.modality) == ("class folders", "a", "other")
    assert by_name(plain) == {"cat/1.png": ("cat", ""), "dog/deep/2.png": ("dog", "")}
    assert reasons(plain) == {"3.png": "lies outside the class folders"}
    assert by_name(split) == {"Train/cat/1.png": ("cat", ""), "valid/dog/2.png": ("dog", "")}
    assert "Train, valid" in split.notes[0]
    assert plain.notes == ()


def test_outer_folder_is_looked_through(tmp_path: Path) -> None:
    draw(tmp_path / "download/archive/cat/1.png", tmp_path / "download/archive/dog/2.png")
    listing = recognise(tmp_path / "download")
    assert listing.source == "download"
    assert names(listing) == ["cat/1.png", "dog/2.png"]


def test_files_without_telling_extension_are_candidates(tmp_path: Path) -> None:
    draw(tmp_path / "cat/1.png", tmp_path / "dog/2.png")
    (tmp_path / "dog/scan.xyz").write_bytes(b"?")
    (tmp_path / "dog/notes.txt").write_text("-")
    listing = recognise(tmp_path)
    assert names(listing) == ["cat/1.png", "dog/2.png", "dog/scan.xyz"]
    assert listing.ignored == {".txt": 1}


def test_link_loops_end(tmp_path: Path) -> None:
    draw(tmp_path / "cat/1.png", tmp_path / "dog/2.png")
    (tmp_path / "dog/again").symlink_to(tmp_path)
    assert names(recognise(tmp_path)) == ["cat/1.png", "dog/2.png"]


def test_csv_manifest_as_file_and_as_folder(tmp_path: Path) -> None:
    draw(tmp_path / "x/1.png", tmp_path / "x/2.png", tmp_path / "x/3.png", tmp_path / "m/1.png")
    table = tmp_path / "list.csv"
    table.write_text(
        "\ufeffPath,Label,patient_id,mask,age,sex,site,modality,subtype,scanner\n"
        "x/1.png,ill,p1,m/1.png,61,F,Northside,MRI,late,A\n"
        "./x/2.png,well,p1,,old,m,,sonar,,B\n"
        "x/1.png,ill,p1,,,,,,,\n"
        "x/9.png,ill,,,,,,,,\n"
        "x/3.png,,,,,,,,,\n"
    )
    listing = recognise(table)
    assert (listing.layout, listing.source) == ("CSV manifest", "list")
    one, two = listing.images
    assert (one.name, one.label, one.patient, one.mask) == ("x/1.png", "ill", "p1", tmp_path / "m/1.png")
    assert (one.age, one.sex, one.site, one.modality, one.subtype) == (
        61,
        "female",
        "Northside",
        "mri",
        "late",
    )
    assert (two.name, two.age, two.sex, two.modality) == ("x/2.png", None, "male", "other")
    assert listing.notes == ("columns that mean nothing here: scanner",)
    told = [(Path(problem.file).name, problem.kind) for problem in listing.problems]
    assert told == [
        ("2.png", "handled"),
        ("2.png", "handled"),
        ("1.png", "skipped"),
        ("9.png", "skipped"),
        ("3.png", "skipped"),
    ]
    draw(tmp_path / "x/4.png")
    folder = recognise(tmp_path)
    assert folder.layout == "CSV manifest"
    assert names(folder) == names(listing)
    assert reasons(folder)["4.png"] == "is not listed in list.csv"


def test_csv_with_semicolons(tmp_path: Path) -> None:
    draw(tmp_path / "1.png")
    (tmp_path / "list.csv").write_text("path;label\n1.png;ill, very\n")
    assert by_name(recognise(tmp_path / "list.csv")) == {"1.png": ("ill, very", "")}


def test_csv_without_label_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,diagnosis\n1.png,ill\n")
    with pytest.raises(LayoutError, match="needs the columns path and label"):
        recognise(tmp_path / "list.csv")


def medmnist(path: Path, *, colour: bool = False, labels: int = 1, size: int = 28) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 5), ("val", 2), ("test", 3)):
        shape = (count, size, size, 3) if colour else (count, size, size)
        arrays[f"{split}_images"] = rng.integers(0, 256, shape, np.uint8)
        arrays[f"{split}_labels"] = rng.integers(0, 2, (count, labels), np.uint8)
    np.savez_compressed(path, **arrays)
    return arrays


@pytest.mark.parametrize(("colour", "size"), [(False, 28), (True, 64)])
def test_medmnist(tmp_path: Path, colour: bool, size: int) -> None:
    arrays = medmnist(tmp_path / "pathmnist.npz", colour=colour, size=size)
    listing = recognise(tmp_path / "pathmnist.npz")
    images = list(listing.images)
    assert (listing.layout, listing.source, listing.total) == ("MedMNIST", "pathmnist", 10)
    assert [image.name for image in images[4:6]] == ["train_images#4", "val_images#0"]
    assert [image.label for image in images[:5]] == [str(label) for label in arrays["train_labels"][:, 0]]
    assert images[-1].pixels is not None
    assert np.array_equal(images[-1].pixels, arrays["test_images"][-1])


def test_medmnist_with_several_labels_is_refused(tmp_path: Path) -> None:
    medmnist(tmp_path / "chestmnist.npz", labels=14)
    with pytest.raises(LayoutError, match="14 labels for each image"):
        recognise(tmp_path / "chestmnist.npz")


def test_other_and_damaged_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    np.savez(tmp_path / "pickled.npz", train_images=np.array([{}]), train_labels=np.array([0]))
    np.savez(
        tmp_path / "volume.npz",
        train_images=np.zeros((2, 8, 8, 8), np.uint8),
        train_labels=np.zeros((2, 1), int),
    )
    medmnist(tmp_path / "cut.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:-300])
    for name in ("other", "pickled", "volume", "cut"):
        with pytest.raises(LayoutError, match=f"{name}.npz"):
            recognise(tmp_path / f"{name}.npz")


@pytest.mark.real
def test_dicom_in_class_folders_and_flat(tmp_path: Path, shared_data: Path) -> None:
    for place, name in [("a/1.dcm", "MR_small.dcm"), ("b/2", "RG1_J2KI.dcm")]:
        (tmp_path / "classed" / place).parent.mkdir(parents=True)
        (tmp_path / "classed" / place).symlink_to(shared_data / "dicom" / name)
    classed, flat = recognise(tmp_path / "classed"), recognise(shared_data / "dicom")
    assert (classed.layout, flat.layout) == ("DICOM folder", "DICOM folder")
    assert by_name(classed) == {"a/1.dcm": ("a", ""), "b/2": ("b", "")}
    assert {image.label for image in flat.images} == {"unlabelled"}
    assert "unlabelled" in flat.notes[0]


def test_unknown_folders_and_files_name_what_was_looked_for(tmp_path: Path) -> None:
    draw(tmp_path / "flat/1.png", tmp_path / "flat/2.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "set.zip").write_bytes(b"PK")
    with pytest.raises(LayoutError, match="2 files called images, 2 of them without a class") as caught:
        recognise(tmp_path / "flat")
    for layout in ("Kermany", "Nickparvar", "HAM10000", "CSV manifest", "DICOM folder", "class folders"):
        assert layout in caught.value.why
    with pytest.raises(LayoutError, match="no images"):
        recognise(tmp_path / "empty")
    with pytest.raises(LayoutError, match="Unpack"):
        recognise(tmp_path / "set.zip")
    with pytest.raises(DataError, match="no folder or file"):
        recognise(tmp_path / "gone")
