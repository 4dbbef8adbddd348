"""Provisioning at the command line: what the lead and a hospital type, see, and hand to machines."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from fedlens.cli import hospital_kit
from fedlens.cli.main import app
from fedlens.deployment.kit import open_kit

RUNNER = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})

HOSPITAL = typer.Typer(name="hospital")
hospital_kit.register(HOSPITAL)

FILE = (
    'name = "chest"\ncoordinator = "localhost"\nlead = "lead@example.org"\nhospitals = ["north", "south"]\n'
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federation file and what `fedlens provision` made of it; not to be changed."""
    folder = tmp_path_factory.mktemp("lead")
    (folder / "federation.toml").write_text(FILE)
    result = RUNNER.invoke(app, ["provision", str(folder / "federation.toml")])
    assert result.exit_code == 0, result.output
    assert "waiting for its request" in result.stdout
    assert "put the request they make into" in result.stdout
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    """A copy of that, to be changed."""
    return Path(shutil.copytree(prepared, tmp_path / "lead"))


@pytest.mark.parametrize("command", ["request", "install", "members"])
def test_help_of_the_hospitals_commands(command: str) -> None:
    result = RUNNER.invoke(HOSPITAL, [command, "--help"])

    assert result.exit_code == 0
    assert f"Example: fedlens hospital {command} " in result.stdout
    assert "--json" in result.stdout


def test_help_of_provision() -> None:
    result = RUNNER.invoke(app, ["provision", "--help"])

    assert "Example: fedlens provision " in result.stdout
    for option in ("--out", "--rotate", "--remove", "--rehearsal", "--new", "--json"):
        assert option in result.stdout


def test_a_federation_file_to_start_from(tmp_path: Path) -> None:
    file = tmp_path / "federation.toml"

    assert RUNNER.invoke(app, ["provision", str(file), "--new"]).exit_code == 0
    refused = RUNNER.invoke(app, ["provision", str(file), "--new"])
    assert (refused.exit_code, "exists already" in refused.stderr) == (2, True)


def test_from_the_request_to_the_kit(folder: Path, tmp_path: Path) -> None:
    file, kit = str(folder / "federation.toml"), tmp_path / "north"

    asked = RUNNER.invoke(HOSPITAL, ["request", "north", file, "--kit", str(kit)])
    assert asked.exit_code == 0, asked.output
    assert "on the phone" in asked.stdout
    shutil.copy(kit / "north.request.zip", folder / "chest" / "requests")

    provisioned = RUNNER.invoke(app, ["provision", file])
    assert provisioned.exit_code == 0, provisioned.output
    key = asked.stdout.partition("Key of north: ")[2].splitlines()[0]
    assert key in provisioned.stdout and "approved now" in provisioned.stdout
    assert "compare them on the phone" in provisioned.stdout
    assert "north.approved.zip" in provisioned.stdout

    approved = str(folder / "chest" / "approved" / "north.approved.zip")
    declined = RUNNER.invoke(HOSPITAL, ["install", approved, "--kit", str(kit)], input="n\n")
    assert declined.exit_code == 1
    assert not (kit / "kit.json").exists()
    installed = RUNNER.invoke(HOSPITAL, ["install", approved, "--kit", str(kit)], input="y\n")
    assert installed.exit_code == 0, installed.output
    assert provisioned.stdout.partition("Members: ")[2].splitlines()[0] in installed.stderr
    assert open_kit(kit, "hospital").name == "north"

    members = str(folder / "chest" / "members.json")
    fingerprint = json.loads(Path(members).read_bytes())["fingerprint"]
    command = ["members", members, "--kit", str(kit), "--fingerprint", fingerprint, "--json"]
    taken = RUNNER.invoke(HOSPITAL, command)
    assert taken.exit_code == 0, taken.output
    assert json.loads(taken.stdout)["hospitals"] == ["north"]


def test_a_rehearsal_says_loudly_what_it_is(folder: Path) -> None:
    file = str(folder / "federation.toml")

    result = RUNNER.invoke(app, ["provision", file, "--rehearsal"])

    assert result.exit_code == 0, result.output
    assert "REHEARSAL" in result.stdout and "A real hospital makes its own kit" in result.stdout
    for name in ("north", "south"):
        open_kit(folder / "chest" / "hospitals" / name, "hospital")
    again = json.loads(RUNNER.invoke(app, ["provision", file, "--rehearsal", "--json"]).stdout)
    assert [hospital["state"] for hospital in again["hospitals"]] == ["approved", "approved"]
    assert again["members_fingerprint"] in result.stdout
    assert (again["members_changed"], again["left"], again["rehearsal"]) == (False, [], True)


@pytest.mark.parametrize("option", ["--remove", "--rotate"])
def test_what_is_refused_ends_with_the_codes_of_deployment(folder: Path, option: str) -> None:
    result = RUNNER.invoke(app, ["provision", str(folder / "federation.toml"), option, "north"])

    assert result.exit_code == 8
    assert "'north' is not a member of chest" in result.stderr


def test_the_lead_may_choose_the_folder(folder: Path, tmp_path: Path) -> None:
    (folder / "chest").rename(tmp_path / "elsewhere")

    result = RUNNER.invoke(
        app, ["provision", str(folder / "federation.toml"), "--out", str(tmp_path / "elsewhere"), "--json"]
    )

    assert json.loads(result.stdout)["folder"] == str(tmp_path / "elsewhere")
    assert not (folder / "chest").exists()
