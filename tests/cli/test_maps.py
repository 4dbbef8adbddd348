"""Explanation figures on the command line: over rounds, by hospital, and at a hospital's own kit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.coordinator.fakes import FakeHospital, initial_parameters, make_settings
from typer.testing import CliRunner

from fedlens.cli.main import app
from fedlens.coordinator.rounds import run_rounds
from fedlens.engines.local import LocalEngine
from fedlens.errors import HistoryError
from fedlens.home_explanations import HOME_EXPLANATIONS_NAME, read_home, read_homes

RUNNER = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})


def found(pointing: float, strays: float) -> dict[str, Any]:
    return {
        "pointing": {"value": pointing, "times_chance": pointing / 0.125, "images": 8},
        "strays": {"value": strays, "images": 8},
        "empty": {"value": 0.0, "images": 8},
    }


def at_home(folder: Path, *numbers: int, told: bool = True) -> None:
    entries = [
        {
            "round": number,
            "images": 8,
            "own": found(0.5, 0.25),
            "federation": found(0.75, 0.0625) if told else None,
            "federation_images": 32 if told else None,
            "straying": [{"sentence": "A: 2 of 8 maps of ill lie on hairs"}] if told else None,
            "straying_classes": [] if told else None,
            "unreadable_outlines": [],
        }
        for number in numbers
    ]
    folder.mkdir(parents=True)
    content = {
        "hospital": "A",
        "method": "grad-cam",
        "measures": "quick",
        "classes": ["x"],
        "rounds": entries,
    }
    (folder / HOME_EXPLANATIONS_NAME).write_text(json.dumps(content))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two measured rounds in the clear."""
    engine = LocalEngine([FakeHospital(name, 30) for name in "AB"])
    settings = make_settings(rounds=2, explanation={"measures": "quick", "every": 1})
    run_rounds(settings, initial_parameters(), engine, tmp_path / "run")
    return tmp_path / "run"


def test_status_shows_how_maps_moved_and_each_hospital(run: Path) -> None:
    shown = RUNNER.invoke(app, ["status", str(run)]).stdout
    events = [json.loads(line) for line in (run / "history.jsonl").open()]
    assert "Explanations by round" in shown and "Explanations of round 2 by hospital" in shown
    for event in events[1:3]:
        assert f"{event['explanation']['figures']['energy']['times_chance']:.2f}" in shown
    own = events[2]["explanation"]["by_hospital"]["B"]["energy"]["times_chance"]
    assert any(line.split()[:1] == ["B"] and f"{own:.2f}" in line for line in shown.splitlines())


def test_status_takes_what_hospitals_keep_at_home_where_it_is_here(run: Path) -> None:
    at_home(run / "hospitals" / "A", 1, 2)
    shown = RUNNER.invoke(app, ["status", str(run)]).stdout
    assert any(line.split()[:3] == ["A", "50.0", "%"] for line in shown.splitlines())
    assert "Straying: A: 2 of 8 maps of ill lie on hairs" in shown
    machine = json.loads(RUNNER.invoke(app, ["status", str(run), "--json"]).stdout)
    assert machine["runs"][0]["explanations_at_home"]["A"]["rounds"][1]["round"] == 2


def test_a_hospital_sees_its_own_against_the_federations(tmp_path: Path) -> None:
    kit = tmp_path / "north"
    kit.mkdir()
    kit_file = {"kind": "hospital", "name": "A", "federation": "f", "host": "localhost", "port": 8002}
    (kit / "kit.json").write_text(json.dumps(kit_file))
    assert "has measured no maps" in RUNNER.invoke(app, ["status", "--kit", str(kit)]).stdout
    at_home(kit / "studies" / "5f", 3)
    at_home(kit / "studies" / "6f", 1, told=False)

    shown = RUNNER.invoke(app, ["status", "--kit", str(kit)]).stdout

    lines = [line.split() for line in shown.splitlines()]
    assert ["3", "A", "8", "50.0", "%", "4.00", "–", "–", "25.0", "%"] in lines
    assert ["federation", "32", "75.0", "%", "6.00", "–", "–", "6.2", "%"] in lines
    assert "straying.csv" in shown and shown.count("Straying: ") == 1


def test_a_damaged_file_at_home_is_named(tmp_path: Path) -> None:
    at_home(tmp_path / "hospitals" / "A", 1)
    assert list(read_homes(tmp_path)) == ["A"] and read_home(tmp_path / "B") is None
    for content in ("{", "[]", '{"rounds": [3]}', '{"rounds": [{"round": "x"}]}'):
        (tmp_path / "hospitals" / "A" / HOME_EXPLANATIONS_NAME).write_text(content)
        with pytest.raises(HistoryError, match="cannot be read"):
            read_homes(tmp_path)
