"""What a host runs: systemd units, the container file, examples, and the commands in docs/deploy.md."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from fedlens.cli.main import app
from fedlens.deployment.federation import load_federation
from fedlens.study import load_study

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
RUNNER = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})
_PROMPT = re.compile(r"^(?:\$ )?(?:[A-Z_]+=\S+ )*fedlens (?P<rest>.*)$")


def _check_command(words: list[str]) -> None:
    """Hold a command of `fedlens` against its help: it exists, and so does every option."""
    command = typer.main.get_command(app)
    rest = list(words)
    while hasattr(command, "commands"):
        assert rest and rest[0] in command.commands, f"no such command: fedlens {shlex.join(words)}"
        command = command.commands[rest.pop(0)]
    known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    options = [word.partition("=")[0] for word in rest if word.startswith("--")]
    assert set(options) <= known, f"fedlens {shlex.join(words)}: unknown {sorted(set(options) - known)}"
    needed = {parameter.opts[0] for parameter in command.params if parameter.required}
    assert {name for name in needed if name.startswith("--")} <= set(options), shlex.join(words)
    reached = words[: len(words) - len(rest)]
    assert RUNNER.invoke(app, [*reached, "--help"]).exit_code == 0


def _settings(unit: Path, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", unit.read_text(), re.MULTILINE)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_starts_a_command_that_exists(unit: Path) -> None:
    (start,) = _settings(unit, "ExecStart")
    program, *words = shlex.split(start)

    assert Path(program).name == "fedlens"
    _check_command(words)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_runs_as_a_user_without_rights_that_can_write_to_its_own_folder_only(unit: Path) -> None:
    assert _settings(unit, "User") == ["fedlens"]
    assert _settings(unit, "NoNewPrivileges") == ["yes"]
    assert _settings(unit, "CapabilityBoundingSet") == [""]
    assert _settings(unit, "ProtectSystem") == ["strict"]
    (writable,) = _settings(unit, "ReadWritePaths")
    assert writable.startswith("/var/lib/fedlens/")
    (start,) = _settings(unit, "ExecStart")
    assert all(path.startswith(writable) for path in shlex.split(start)[1:] if path.startswith("/"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_finds_no_fault_with_a_unit(unit: Path, tmp_path: Path) -> None:
    program = tmp_path / "fedlens"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    copy = tmp_path / unit.name.replace("@.", "@north.")
    copy.write_text(unit.read_text().replace("/opt/fedlens/bin/fedlens", str(program)))

    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


def _instructions() -> list[tuple[str, str]]:
    text = (DEPLOY / "Containerfile").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ")
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in whole.splitlines()) if word]


def test_the_container_file_is_pinned_has_no_keys_in_it_and_ends_as_a_user_without_rights() -> None:
    instructions = _instructions()
    bases = [rest.split()[0] for word, rest in instructions if word == "FROM"]
    copied = [rest.split() for word, rest in instructions if word == "COPY"]
    users = [rest for word, rest in instructions if word == "USER"]

    assert all(re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", base) for base in bases), bases
    assert "ADD" not in {word for word, _ in instructions}
    assert not any(re.search(r":latest|\bARG\b|(?i:secret|passw|token)", rest) for _, rest in instructions)
    for sources in (words[:-1] for words in copied if not words[0].startswith("--from=")):
        assert all((ROOT / source).exists() for source in sources), sources
        assert set(sources) <= {"constraints.txt", "pyproject.toml", "README.md", "LICENSE", "src"}
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])
    assert ("ENTRYPOINT", '["fedlens"]') in instructions


def test_the_container_file_installs_the_torch_that_everything_is_tested_with() -> None:
    pinned = re.findall(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)

    assert f"torch=={pinned[0]}+cpu" in (DEPLOY / "Containerfile").read_text()


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_hadolint_finds_no_fault_with_the_container_file() -> None:
    done = subprocess.run(
        ["hadolint", str(DEPLOY / "Containerfile")], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (0, "")


def test_compose_starts_commands_that_exist_without_rights() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]

    for service in services.values():
        _check_command(service["command"])
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
        assert ("USER", service["user"]) in _instructions()
    assert set(services) == {"coordinator", "hospital"}
    assert "ports" not in services["hospital"]


def test_the_examples_of_a_federation_fit_each_other() -> None:
    federation = load_federation(ROOT / "examples" / "federation.toml")
    study = load_study(ROOT / "examples" / "chest_federation.toml")

    assert set(study.hospitals.names) <= set(federation.hospitals)
    assert study.data.classes
    assert study.sealed(len(study.hospitals.names))
    assert str(federation.port) in (DEPLOY / "compose.yaml").read_text()


def test_every_command_in_the_guide_exists() -> None:
    text = (ROOT / "docs" / "deploy.md").read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    found = [match["rest"] for line in lines if (match := _PROMPT.match(line))]

    assert len(found) > 20
    for rest in found:
        _check_command(shlex.split(re.split(r" [>|&#]| 2>", rest)[0]))
