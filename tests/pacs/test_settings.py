"""Addresses of a PACS, and searches that would pull too much."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedlens.errors import PacsError, SettingsError
from fedlens.pacs.instances import Instance
from fedlens.pacs.settings import DimseServer, Tls, Wanted, WebServer, parse_server


def test_the_scheme_says_which_protocol() -> None:
    plain = parse_server("dicom://ARCHIVE@pacs.example:104", own_title="LENS", move_port=11113)
    assert plain == DimseServer("pacs.example", 104, "ARCHIVE", "LENS", None, 11113)
    secure = parse_server("dicom+tls://ARCHIVE@pacs.example:2762")
    assert isinstance(secure, DimseServer)
    assert secure.tls == Tls()
    web = parse_server("https://pacs.example/dicom-web/", token="t")
    assert web == WebServer("https://pacs.example/dicom-web", token="t")


@pytest.mark.parametrize(
    "address",
    [
        "pacs",
        "dicom://pacs:104",
        "dicom://A@pacs",
        "ftp://pacs/",
        "dicom://A@pacs:99999",
        "https://",
        "dicom://A@:1",
    ],
)
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(SettingsError, match="no address of a PACS"):
        parse_server(address)


def test_passwords_are_not_taken_from_the_address_nor_sent_in_the_clear_nor_shown() -> None:
    with pytest.raises(SettingsError, match="holds a password"):
        parse_server("https://me:secret@pacs/")
    with pytest.raises(SettingsError, match="unencrypted"):
        parse_server("http://pacs/dicom-web", user="me", password="secret")
    with pytest.raises(SettingsError, match="unencrypted"):
        parse_server("http://127.0.0.1.example/dicom-web", token="secret")
    local = parse_server("http://127.0.0.1:8042/dicom-web", user="me", password="secret")
    assert "secret" not in repr(local)


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({}, "Nothing says which"),
        ({"modality": "CT"}, "Nothing says which"),
        ({"series": "1.2", "patient": "a"}, "within its study"),
        ({"study": "1.2/../3"}, "no UID"),
        ({"patient": "*"}, "wild card"),
        ({"dates": "2026"}, "no dates"),
        ({"patient": "a", "limit": 0}, "pulls nothing"),
    ],
)
def test_searches_without_bounds_are_refused(keys: dict[str, object], complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        Wanted(**keys)  # type: ignore[arg-type]


def test_files_of_certificates_must_be_there_and_go_together(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="go together"):
        Tls(certificate=tmp_path / "a")
    with pytest.raises(SettingsError, match="no file"):
        Tls(authority=tmp_path / "a")
    (tmp_path / "a").write_text("no certificate")
    with pytest.raises(SettingsError, match="cannot be used"):
        Tls(authority=tmp_path / "a").context()


@pytest.mark.parametrize("uid", ["../../etc/passwd", "", "1.2.", "1..2", "1" * 65, "1.2\n"])
def test_a_pacs_cannot_name_a_file_outside_the_folder(uid: str) -> None:
    with pytest.raises(PacsError, match="no UID"):
        Instance("1.2", "1.3", uid)
