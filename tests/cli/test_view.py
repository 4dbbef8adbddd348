"""``fedlens view``: what it refuses, and that it answers and ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from tests.untrained_run import make_run
from typer.testing import CliRunner

from fedlens.cli.main import app

RUNNER = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})


def test_help_has_a_summary_and_an_example() -> None:
    shown = RUNNER.invoke(app, ["view", "--help"]).stdout
    assert "Example: fedlens view " in shown and "--accounts" in shown


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ([], 6, "finished run"),
        (["--port", "70000"], 2, "port = 70000"),
        (["--host", "0.0.0.0"], 2, "--accounts"),
        (["--certificate", "cert.pem"], 2, "--key"),
    ],
)
def test_what_it_refuses(options: list[str], code: int, words: str, tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["view", str(tmp_path), *options])
    assert result.exit_code == code and words in result.stderr and "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_it_prints_its_address_answers_and_ends_quietly(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    command = [sys.executable, "-m", "fedlens", "view", str(run), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "TERM": "dumb"}
    ) as process:
        assert process.stdout and process.stderr
        address = process.stdout.readline().split()[-1]
        with urllib.request.urlopen(address) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in "".join(rest)
    assert (run / "viewer" / "audit.jsonl").is_file()
