"""``fedlens account``: accounts at the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from tests.viewer.guarded import CHEAP
from typer.testing import CliRunner

from fedlens.cli import account
from fedlens.errors import SettingsError
from fedlens.viewer.accounts import Accounts

RUNNER = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})
PASSWORD = "correct horse battery"

APP = typer.Typer()
APP.add_typer(account.app)


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes that cost little; the library's parameters are the accounts' own test."""
    monkeypatch.setattr("fedlens.viewer.accounts.PasswordHasher", lambda: CHEAP)


def run(*words: str, typed: str = "") -> str:
    """What a command prints; the errors that it raises on purpose are raised."""
    result = RUNNER.invoke(APP, ["account", *words], input=typed)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A file with one account, made from a piped password."""
    path = str(tmp_path / "accounts.json")
    run("add", path, "anna", "--password-stdin", typed=f"{PASSWORD}\n")
    return path


@pytest.mark.parametrize("command", ["add", "remove", "list"])
def test_help_has_an_example(command: str) -> None:
    printed = run(command, "--help")
    assert f"Example: fedlens account {command} " in printed
    assert "--json" in printed


def test_piped_password_makes_an_account(file: str) -> None:
    assert Accounts(Path(file)).verify("anna", PASSWORD)
    assert Path(file).stat().st_mode & 0o777 == 0o600


def test_typed_password_is_asked_for_twice_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "accounts.json"
    typed = f"{PASSWORD}\n{PASSWORD} too\n{PASSWORD}\n{PASSWORD}\n"
    printed = run("add", str(path), "anna", typed=typed)

    assert printed.endswith(f"anna may log in with {path}.\n")
    assert PASSWORD not in printed
    assert Accounts(path).verify("anna", PASSWORD)


def test_short_password_makes_no_account(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="A password has 12 to"):
        run("add", str(tmp_path / "accounts.json"), "anna", "--password-stdin", typed="short\n")
    assert not (tmp_path / "accounts.json").exists()


def test_new_password_needs_to_be_wanted(file: str) -> None:
    with pytest.raises(SettingsError, match="has an account anna already"):
        run("add", file, "anna", "--password-stdin", typed="another good password\n")
    run("add", file, "anna", "--password-stdin", "--replace", typed="another good password\n")
    assert Accounts(Path(file)).verify("anna", "another good password")


def test_accounts_are_listed_and_removed(file: str) -> None:
    run("add", file, "ben", "--password-stdin", typed=f"{PASSWORD}\n")
    assert run("list", file).split() == ["anna", "ben"]
    assert json.loads(run("list", file, "--json")) == {"file": file, "accounts": ["anna", "ben"]}
    assert run("remove", file, "anna") == f"anna may no longer log in with {file}.\n"
    assert run("list", file).split() == ["ben"]
    with pytest.raises(SettingsError, match="has no account anna"):
        run("remove", file, "anna")
