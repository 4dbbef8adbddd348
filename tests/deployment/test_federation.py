"""Federation files: nothing is silently ignored, and names are such as FLARE and the roster take."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlens.deployment.federation import RESERVED, Federation, load_federation, new_federation
from fedlens.errors import SettingsError

SMALLEST = 'name = "chest"\ncoordinator = "localhost"\nlead = "lead@example.org"\nhospitals = ["north"]\n'


def _load(tmp_path: Path, text: str) -> Federation:
    path = tmp_path / "federation.toml"
    path.write_text(text)
    return load_federation(path)


def test_defaults(tmp_path: Path) -> None:
    federation = _load(tmp_path, SMALLEST)

    assert (federation.port, federation.valid_days) == (8002, 1095)
    assert federation.hospitals == ("north",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALLEST + "prt = 3\n", "did you mean port?"),
        (SMALLEST + "port = 0\n", "port = 0:"),
        (SMALLEST + "valid_days = 0\n", "valid_days = 0:"),
        (SMALLEST.replace('"chest"', '"a b"'), "name = 'a b':"),
        (SMALLEST.replace('"chest"', '"-a"'), "name = '-a':"),
        (SMALLEST.replace('"localhost"', '"local host"'), "coordinator = 'local host':"),
        (SMALLEST.replace('"localhost"', '"http://x"'), "coordinator = 'http://x':"),
        (SMALLEST.replace('"lead@example.org"', '"lead"'), "lead = 'lead':"),
        (SMALLEST.replace('"north"', ""), "hospitals = []:"),
        (SMALLEST.replace('"north"', '"North"'), "hospitals.0 = 'North':"),
        (SMALLEST.replace('"north"', '"a_b"'), "hospitals.0 = 'a_b':"),
        (SMALLEST.replace('"north"', '"a/b"'), "hospitals.0 = 'a/b':"),
        (SMALLEST.replace('"north"', f'"{"n" * 65}"'), "hospitals.0 ="),
        (SMALLEST.replace('"north"', '"north", "north"'), "stands for one hospital only"),
        (SMALLEST.replace('"north"', '"localhost"'), "cannot name a hospital"),
        ("name =\n", "not valid TOML"),
        ("", "hospitals is missing"),
    ],
)
def test_a_wrong_file_is_refused_with_what_to_mend(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        _load(tmp_path, text)

    assert message in str(caught.value)
    assert "federation.toml" in caught.value.what


@pytest.mark.parametrize("name", RESERVED)
def test_reserved_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="cannot name a hospital"):
        _load(tmp_path, SMALLEST.replace('"north"', f'"{name}"'))


def test_more_hospitals_than_a_roster_takes_are_refused(tmp_path: Path) -> None:
    names = ", ".join(f'"h{number}"' for number in range(256))

    with pytest.raises(SettingsError, match="at most 255"):
        _load(tmp_path, SMALLEST.replace('"north"', names))


@settings(deadline=None)
@given(
    name=st.from_regex(r"[a-z0-9][a-z0-9-]{0,30}", fullmatch=True),
    host=st.from_regex(r"([a-z0-9]{1,9}\.){0,2}[a-z0-9]{1,9}", fullmatch=True),
)
def test_flare_takes_every_name_that_is_taken_here(name: str, host: str) -> None:
    check = pytest.importorskip("nvflare.apis.utils.format_check")
    try:
        Federation(name=name, coordinator=host, lead=f"{name}@example.org", hospitals=(name,))
    except ValueError:
        assert name in (*RESERVED, host)
        return

    for kind, text in (("client", name), ("server", host), ("admin", f"{name}@example.org")):
        refused, reason = check.name_check(text, kind)
        assert not refused, reason


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_federation(tmp_path / "federation.toml")

    assert "fedlens provision FILE --new" in caught.value.fix


@pytest.mark.parametrize("name", ["federation", "chest x-rays", "ä"])
def test_the_template_names_every_key_and_can_be_used_as_it_is(tmp_path: Path, name: str) -> None:
    file = new_federation(tmp_path / f"{name}.toml")

    federation = load_federation(file)
    assert len(federation.hospitals) == 4
    assert all(f"\n{key} = " in file.read_text() for key in Federation.model_fields)


def test_a_template_overwrites_nothing(tmp_path: Path) -> None:
    file = new_federation(tmp_path / "federation.toml")
    file.write_text(SMALLEST)

    with pytest.raises(SettingsError, match="exists already"):
        new_federation(file)
    with pytest.raises(SettingsError, match=r"federation\.toml"):
        new_federation(tmp_path / "federation.yml")
    assert file.read_text() == SMALLEST
