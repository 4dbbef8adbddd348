"""Which images a viewer shows."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from pydicom.data import get_testdata_file
from tests.imaging.test_dicom import made, written

from fedlens.errors import SettingsError, UnreadableImageError
from fedlens.preparation import plan_images
from fedlens.run_folder import find_model, kept_study
from fedlens.viewer import collecting
from fedlens.viewer.collecting import folder_cases, study_images


def checkpoint(run: Path) -> Path:
    return find_model(run, "federated")


def test_test_images_are_listed_and_all_others_kept_for_reference(run: Path) -> None:
    study = kept_study(run)
    assert study is not None
    manifest = plan_images(study)
    found = study_images(checkpoint(run))
    by_digest = {case.sha256: case for case in found.cases}
    assert len(found.cases) == len(manifest) and not found.note
    for record in manifest:
        case = by_digest[record.sha256]
        assert case.origin == ("study" if record.split == "test" else "reference")
        assert (case.label, case.hospital) == (record.label, record.hospital)
        assert hashlib.sha256(case.file.read_bytes()).hexdigest() == record.sha256
        assert "/" not in case.title and record.image_id.endswith(case.title)
        assert found.groups[record.sha256] == record.cluster


def test_one_hospital_sees_its_own(run: Path) -> None:
    everyone = study_images(checkpoint(run))
    name = everyone.cases[0].hospital
    own = study_images(checkpoint(run), hospital=name)
    assert 0 < len(own.cases) < len(everyone.cases)
    assert {case.hospital for case in own.cases} == {name}
    with pytest.raises(SettingsError, match=name):
        study_images(checkpoint(run), hospital="nowhere")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("images", "gone", "No manifest.parquet"),
        ('"split_seed": 0', '"split_seed": 1', "other images, splits or shares"),
    ],
)
def test_other_images_than_the_runs_are_not_shown(
    run: Path, tmp_path: Path, old: str, new: str, said: str
) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    kept = copied / "study.json"
    wanted = str(run.parent / old) if old == "images" else old
    kept.write_text(kept.read_text().replace(wanted, str(tmp_path / new) if old == "images" else new))
    found = study_images(checkpoint(copied))
    assert found.cases == () and said in found.note


def test_a_run_without_settings_has_no_images(run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "model"
    shutil.copytree(checkpoint(run), copied)
    found = study_images(copied)
    assert found.cases == () and "study.json" in found.note


def test_files_and_folders(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    (inbox / "deep").mkdir(parents=True)
    (inbox / "torn.png").write_bytes(b"\x89PNG")
    (inbox / "notes.txt").write_text("no image")
    (inbox / "deep" / "film").write_bytes(
        written(made(np.eye(4, dtype=np.uint16), PatientName="Doe^Jane", PatientID="4711"))
    )
    shutil.copy(str(get_testdata_file("examples_ybr_color.dcm")), inbox / "series.dcm")
    steps: list[tuple[str, int, int]] = []
    found = list(folder_cases([inbox], progress=lambda *step: steps.append(step)))
    titles = [case.title for case in found]
    assert titles == ["film", *(f"series.dcm#{number}" for number in range(30)), "torn.png"]
    assert [case.frame for case in found] == [0, *range(30), 0]
    assert found[0].patient == "Doe Jane (4711)" and not found[-1].patient
    assert len({case.sha256 for case in found}) == 3 and all(case.file.is_absolute() for case in found)
    assert {case.origin for case in found} == {"folder"} and steps[-1] == ("read images", 3, 3)
    assert len({case.case_id for case in found}) == len(found)


def test_a_file_that_cannot_be_read_is_a_case_that_says_so_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(b"")

    def forbidden(path: Path) -> bytes:
        raise UnreadableImageError(str(path), "Permission denied")

    monkeypatch.setattr(collecting, "read_bytes", forbidden)
    (case,) = folder_cases([tmp_path])
    assert case.title == "a.png" and case.sha256 == "" and case.patient == ""


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"missing\.png"):
        list(folder_cases([tmp_path / "missing.png"]))
