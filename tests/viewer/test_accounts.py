"""Accounts: names, passwords, and the file that holds what checks them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from tests.viewer.guarded import CHEAP, PASSWORD, make_accounts

from fedlens.errors import SettingsError
from fedlens.viewer.accounts import Accounts


def test_right_password_alone_is_accepted(tmp_path: Path) -> None:
    accounts = make_accounts(tmp_path, "anna", "b.weber@north")

    assert accounts.names() == ("anna", "b.weber@north")
    assert accounts.verify("anna", PASSWORD)
    assert not accounts.verify("anna", PASSWORD + " ")
    assert not accounts.verify("nobody", PASSWORD)
    assert not accounts.verify("", "")


def test_file_is_private_and_holds_no_password(tmp_path: Path) -> None:
    make_accounts(tmp_path, "anna")

    assert (tmp_path / "accounts.json").stat().st_mode & 0o777 == 0o600
    assert PASSWORD not in (tmp_path / "accounts.json").read_text()


def test_hashes_are_argon2id_with_the_librarys_parameters(tmp_path: Path) -> None:
    Accounts(tmp_path / "accounts.json").add("anna", PASSWORD)

    kept = json.loads((tmp_path / "accounts.json").read_text())["accounts"]["anna"]
    assert kept.startswith("$argon2id$")
    assert not PasswordHasher().check_needs_rehash(kept)


def test_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    make_accounts(tmp_path, "anna")
    (tmp_path / "accounts.json").chmod(0o640)

    with pytest.raises(SettingsError, match="Other users of this machine may read"):
        Accounts(tmp_path / "accounts.json").names()


@pytest.mark.parametrize("content", ["", "[]", '{"version": 2}', '{"accounts": {"a": 1}}', "\udcff"])
def test_damaged_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "accounts.json"
    path.write_text(content, errors="surrogateescape")
    path.chmod(0o600)

    with pytest.raises(SettingsError, match="is no file of accounts"):
        Accounts(path).names()


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"Cannot read the accounts .*accounts\.json"):
        make_accounts(tmp_path).verify("anna", PASSWORD)


@pytest.mark.parametrize("name", ["", "-anna", "a b", "anna\n", "müller", "../anna", "a" * 65, "<b>"])
def test_names_that_could_mean_more_than_a_name_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="cannot be the name of an account"):
        make_accounts(tmp_path, name)


def test_name_is_given_once_whatever_the_case_of_its_letters(tmp_path: Path) -> None:
    accounts = make_accounts(tmp_path, "anna")

    for name in ("anna", "Anna"):
        with pytest.raises(SettingsError, match="has an account anna already"):
            accounts.add(name, PASSWORD)
    with pytest.raises(SettingsError, match="already"):
        accounts.add("Anna", PASSWORD, replace=True)


@pytest.mark.parametrize("password", ["", "short", "eleven char", "x" * 1025])
def test_password_of_a_wrong_length_is_refused(tmp_path: Path, password: str) -> None:
    with pytest.raises(SettingsError, match="12 to 1,024 characters"):
        make_accounts(tmp_path).add("anna", password)


def test_password_that_is_the_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="little more than the account's name"):
        make_accounts(tmp_path).add("anna.schmidt", "Anna.Schmidt1")


def test_accent_typed_in_two_ways_is_one_password(tmp_path: Path) -> None:
    accounts = make_accounts(tmp_path)
    accounts.add("anna", "cafe\u0301 au lait, s'il")

    assert accounts.verify("anna", "caf\u00e9 au lait, s'il")


def test_new_password_replaces_the_old_one(tmp_path: Path) -> None:
    accounts = make_accounts(tmp_path, "anna")
    before = accounts.mark("anna")
    accounts.add("anna", "another good password", replace=True)

    assert not accounts.verify("anna", PASSWORD)
    assert accounts.verify("anna", "another good password")
    assert accounts.mark("anna") != before


def test_removed_account_is_gone_for_a_viewer_that_runs(tmp_path: Path) -> None:
    running, lead = make_accounts(tmp_path, "anna", "ben"), Accounts(tmp_path / "accounts.json", CHEAP)
    assert running.verify("anna", PASSWORD)
    lead.remove("anna")

    assert not running.verify("anna", PASSWORD)
    assert running.mark("anna") == ""
    with pytest.raises(SettingsError, match="has no account anna"):
        lead.remove("anna")


def test_hash_of_old_parameters_is_replaced_at_the_next_login(tmp_path: Path) -> None:
    make_accounts(tmp_path, "anna")
    stronger = Accounts(
        tmp_path / "accounts.json", PasswordHasher(time_cost=2, memory_cost=64, parallelism=1)
    )
    before = stronger.mark("anna")

    assert not stronger.verify("anna", "not the password")
    assert stronger.mark("anna") == before
    assert stronger.verify("anna", PASSWORD)
    assert stronger.mark("anna") != before
    assert stronger.verify("anna", PASSWORD)


def test_unknown_name_costs_a_check_of_a_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []
    verify = PasswordHasher.verify

    def counted(self: PasswordHasher, hash: str, password: str) -> bool:
        checked.append(password)
        return verify(self, hash, password)

    monkeypatch.setattr(PasswordHasher, "verify", counted)
    accounts = make_accounts(tmp_path, "anna")
    accounts.verify("anna", "wrong")
    accounts.verify("nobody", "wrong too")

    assert checked == ["wrong", "wrong too"]
