"""Commands: help, exit codes, and JSON that machines can read."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

import fedlens
from fedlens.cli.main import app
from fedlens.errors import FedLensError, RoundError

COMMANDS = [
    "data import",
    "data deidentify",
    "data audit",
    "data split",
    "data share",
    "data phantoms",
    "study new",
    "study check",
    "run",
    "compare",
    "explain",
    "export",
    "status",
    "report",
    "card",
    "pacs pull",
    "pacs push",
    "pacs results",
    "demo",
]
RUNNER = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one folder per class."""
    rng = np.random.default_rng(0)
    for label in ("benign", "malignant"):
        (tmp_path / "source" / label).mkdir(parents=True)
        for number in range(40):
            pixels = rng.integers(0, 256, (32, 32), np.uint8)
            cv2.imwrite(str(tmp_path / "source" / label / f"{number}.png"), pixels)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_a_summary_an_example_and_json(command: str) -> None:
    result = RUNNER.invoke(app, [*command.split(), "--help"])

    assert result.exit_code == 0
    assert f"Example: fedlens {command} " in result.stdout
    assert "--json" in result.stdout


def test_help_lists_every_command_and_the_exit_codes() -> None:
    shown = RUNNER.invoke(app, ["--help"]).stdout

    for command in COMMANDS:
        assert f" {command.split()[0]} " in shown
    for code in {error.exit_code for error in (FedLensError, *FedLensError.__subclasses__())} | {130}:
        assert f" {code} " in shown, f"exit code {code} is not in the help"


def test_the_version() -> None:
    assert RUNNER.invoke(app, ["--version"]).stdout == f"fedlens {fedlens.__version__}\n"


def test_an_unknown_key_exits_2_and_names_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text('name = "a"\n[data]\nfolder = "images"\n[training]\nbatchsize = 3\n')

    result = RUNNER.invoke(app, ["study", "check", str(file)])

    assert result.exit_code == 2
    assert "unknown key training.batchsize; did you mean training.batch_size?" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "missing.toml"], 2, "fedlens study new"),
        (["compare", "missing.toml"], 2, "fedlens study new"),
        (["data", "audit", "missing"], 3, "fedlens data import"),
        (["data", "split", "missing"], 3, "fedlens data import"),
        (["data", "import", "missing", "--out", "out"], 3, "missing"),
        (["status", "missing"], 6, "fedlens run"),
        (["explain", "missing", "scan.png"], 6, "finished run"),
    ],
)
def test_what_is_missing_has_its_own_exit_code_and_says_what_to_do(
    arguments: list[str], code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    result = RUNNER.invoke(app, arguments)

    assert result.exit_code == code
    assert result.stderr.startswith("Error: ")
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_an_error_is_json_too_where_json_was_asked_for(tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["status", str(tmp_path), "--json"])

    voices = json.loads(result.stdout)
    assert voices["exit_code"] == result.exit_code == 6
    assert voices["error"] in result.stderr.replace("\n", " ")
    assert voices["fix"]


def test_an_error_message_is_not_read_as_markup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(run: Path) -> None:
        raise RoundError("Weight [bold]x[/bold].", why="Shapes [1] and [2].")

    monkeypatch.setattr(fedlens, "run_status", fail, raising=False)

    result = RUNNER.invoke(app, ["status", str(tmp_path)])

    assert result.exit_code == 5
    assert "Weight [bold]x[/bold]." in result.stderr
    assert "Shapes [1] and [2]." in result.stderr


def test_ctrl_c_exits_130_and_says_how_to_go_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    file = fedlens.new_study(folder / "study.toml", folder / "images")
    monkeypatch.setattr(fedlens, "run", interrupted, raising=False)

    result = RUNNER.invoke(app, ["run", str(file)])

    assert result.exit_code == 130
    assert f"fedlens run {file} --resume" in result.stderr


def test_import_reports_and_sends_progress_elsewhere(folder: Path) -> None:
    arguments = ["data", "import", str(folder / "source"), "--out", str(folder / "images"), "--json"]

    result = RUNNER.invoke(app, arguments)

    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content["images"] == 80
    assert content["sources"]["source"]["labels"] == {"benign": 40, "malignant": 40}
    assert "import source: 80 of 80" in result.stderr
    assert "\x1b" not in result.output


def test_importing_over_an_import_is_refused_until_allowed(folder: Path) -> None:
    arguments = ["data", "import", str(folder / "source"), "--out", str(folder / "images")]
    assert RUNNER.invoke(app, arguments).exit_code == 0

    assert RUNNER.invoke(app, arguments).exit_code == 3
    assert RUNNER.invoke(app, [*arguments, "--overwrite"]).exit_code == 0


def test_split_writes_the_manifest(folder: Path) -> None:
    images = folder / "images"
    RUNNER.invoke(app, ["data", "import", str(folder / "source"), "--out", str(images)])

    arguments = ["data", "split", str(images), "--validation", "0.25", "--test", "0.25", "--json"]
    result = RUNNER.invoke(app, arguments)

    assert result.exit_code == 0, result.output
    counts = json.loads(result.stdout)["images"]
    assert counts == {label: {"train": 20, "validation": 10, "test": 10} for label in ("benign", "malignant")}
    assert {record.split for record in fedlens.load_manifest(images)} == {"train", "validation", "test"}


def test_a_study_is_written_and_checked(folder: Path) -> None:
    RUNNER.invoke(app, ["data", "import", str(folder / "source"), "--out", str(folder / "images")])
    file = folder / "study.toml"
    made = RUNNER.invoke(app, ["study", "new", str(file), "--data", str(folder / "images"), "--json"])
    assert json.loads(made.stdout) == {"file": str(file)}

    readable = RUNNER.invoke(app, ["study", "check", str(file)])
    machine = RUNNER.invoke(app, ["study", "check", str(file), "--json"])

    assert readable.exit_code == 0, readable.output
    assert "benign" in readable.stdout and "validation" in readable.stdout
    images = json.loads(machine.stdout)["images"]
    assert (
        sum(count for splits in images.values() for labels in splits.values() for count in labels.values())
        == 80
    )


def test_status_shows_rounds_and_hospitals(tmp_path: Path) -> None:
    start = {"event": "start", "strategy": "fedavg", "rounds": 2, "hospitals": ["A", "B"], "classes": []}
    measured = {
        "loss": 0.25,
        "accuracy": 0.875,
        "hospitals": {"A": {"loss": 0.3, "accuracy": 0.8}},
        "seconds": 1.0,
    }
    event = {
        "event": "round",
        "round": 1,
        "participants": ["A", "B"],
        "hospitals": {"A": {"images": 1234, "loss": 0.5}},
        "missing": {"B": "It did not answer."},
        "refused": {},
        "loss": 0.5,
        "accuracy": 0.75,
        "seconds": {"training": 2.0, "aggregation": 0.5},
        "evaluation": measured,
    }
    (tmp_path / "history.jsonl").write_text(json.dumps(start) + "\n" + json.dumps(event) + "\n")

    readable = RUNNER.invoke(app, ["status", str(tmp_path)])
    machine = RUNNER.invoke(app, ["status", str(tmp_path), "--json"])

    assert readable.exit_code == 0, readable.output
    for words in ("1 of 2 rounds", "1,234", "0.8750", "3.5", "It did not answer."):
        assert words in readable.stdout
    assert json.loads(machine.stdout)["runs"][0]["rounds_done"] == 1


def test_status_names_who_was_away_in_each_round(tmp_path: Path) -> None:
    start = {"event": "start", "strategy": "fedavg", "rounds": 3, "hospitals": ["A", "B", "C"], "classes": []}
    everybody = {"hospitals": {"A": {}, "B": {}, "C": {}}, "missing": {}, "refused": {}}
    step = {"event": "round", "participants": ["A", "B", "C"], "seconds": {}, **everybody}
    without = {**step, "hospitals": {"A": {}}, "missing": {"B": "off"}, "refused": {"C": "no"}}
    measured = {**everybody, "hospitals": {"A": {}, "B": {}}, "missing": {"C": "off"}}
    # Two of three were drawn: whoever was not is not away. B failed only after its update was summed.
    drawn = {"participants": ["A", "B"], "hospitals": {"A": {}, "B": {}}, "missing": {"B": "late"}}
    rounds = [
        {**without, "round": 1, "evaluation": measured},
        {**step, "round": 2, "evaluation": measured},
        {**step, "round": 3, **drawn},
    ]
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(event) + "\n" for event in [start, *rounds]))

    lines = RUNNER.invoke(app, ["status", str(tmp_path)]).stdout.splitlines()

    header = next(number for number, line in enumerate(lines) if line.split()[:1] == ["round"])
    assert lines[header].split()[-1] == "away"
    shown = [line[lines[header].index("away") :].strip() for line in lines[header + 1 : header + 4]]
    assert shown == ["B, C", "C (validation)", ""]


def test_seeds_that_are_no_numbers_are_refused(folder: Path) -> None:
    file = fedlens.new_study(folder / "study.toml", folder / "images")

    result = RUNNER.invoke(app, ["compare", str(file), "--seeds", "0,one"])

    assert result.exit_code == 2
    assert "--seeds 0,1,2" in result.stderr
