"""The study file that ``fedlens study new`` writes."""

from __future__ import annotations

import itertools
import tomllib
from pathlib import Path

import pytest

from fedlens.errors import SettingsError
from fedlens.study import DataSettings, Study, load_study
from fedlens.study_template import new_study, study_text


def test_it_loads_and_holds_every_default(tmp_path: Path) -> None:
    file = new_study(tmp_path / "chest.toml", tmp_path / "images")

    plain = Study(
        name="chest", output=tmp_path / "runs" / "chest", data=DataSettings(folder=tmp_path / "images")
    )
    assert load_study(file) == plain


def test_every_key_is_there_with_an_explanation() -> None:
    text = study_text("chest", "images")

    content = tomllib.loads(text)
    for table, field in Study.model_fields.items():
        keys = getattr(field.annotation, "model_fields", None)
        for key in keys or ():
            assert key in content[table] or f"\n# {key} = " in text, f"{table}.{key}"
    lines = text.splitlines()
    for above, line in itertools.pairwise(lines):
        if line and not line.startswith(("#", "[")):
            assert above.startswith("# ") and len(above) > 8, f"{line!r} is not explained"
    assert "``" not in text
    assert max(map(len, lines)) <= 110


def test_data_near_the_file_is_written_relative_to_it(tmp_path: Path) -> None:
    file = new_study(tmp_path / "studies" / "chest.toml", tmp_path / "images")

    assert 'folder = "../images"' in file.read_text()
    assert load_study(file).data.folder.resolve() == tmp_path / "images"


def test_data_elsewhere_is_written_absolute(tmp_path: Path) -> None:
    file = new_study(tmp_path / "chest.toml", Path("/somewhere/else/images"))

    assert 'folder = "/somewhere/else/images"' in file.read_text()


def test_the_name_comes_from_the_file(tmp_path: Path) -> None:
    assert load_study(new_study(tmp_path / "my chest study.toml", tmp_path)).name == "my-chest-study"


def test_an_existing_file_is_kept_unless_told(tmp_path: Path) -> None:
    file = tmp_path / "chest.toml"
    file.write_text("mine")

    with pytest.raises(SettingsError):
        new_study(file, tmp_path)
    assert file.read_text() == "mine"

    new_study(file, tmp_path, overwrite=True)
    assert load_study(file).name == "chest"


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"chest\.toml"):
        new_study(tmp_path / "chest.yaml", tmp_path)
