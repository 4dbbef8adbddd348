"""The report of a folder in which a study between machines left its settings, history and network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import fedlens
from fedlens.cli.main import app
from fedlens.coordinator.history import read_history
from fedlens.deployment.session import collect_results
from fedlens.errors import HistoryError
from fedlens.federation_report import holds_only_a_history, write_federation_report
from fedlens.run_folder import keep_study
from fedlens.study import Study

from .test_sealing import Federation, make_study


class Finished:
    """Stands for a session with a coordinator that has a finished study."""

    def __init__(self, folder: Path) -> None:
        self._files = {
            "history": folder / "history.jsonl",
            "rounds": max((folder / "rounds").iterdir()),
        }

    def fetch(self, name: str, file: str, target: Path, *_: Any) -> str:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self._files[file], target)
        return self._files[file].name


@pytest.fixture(scope="module")
def study() -> Study:
    settings = make_study(rounds=1)
    data = settings.data.model_copy(
        update={"folder": Path("/hidden/place/chest"), "classes": ("x", "y", "z")}
    )
    return settings.model_copy(update={"name": "apart", "data": data})


@pytest.fixture(scope="module")
def collected(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What collecting leaves at the lead."""
    far, near = tmp_path_factory.mktemp("coordinator"), tmp_path_factory.mktemp("lead") / "apart"
    Federation(far, study).run()
    collect_results(Finished(far), study, near)  # type: ignore[arg-type]
    return near


@pytest.fixture
def folder(collected: Path, tmp_path: Path) -> Path:
    """A copy without its report."""
    shutil.copytree(collected, tmp_path / "apart")
    (tmp_path / "apart" / "report.html").unlink()
    return tmp_path / "apart"


def test_collecting_a_study_writes_its_report(collected: Path) -> None:
    assert sorted(path.name for path in collected.iterdir()) == ["report.html", "seed-0", "study.json"]
    assert sorted(path.name for path in (collected / "seed-0" / "federated").iterdir()) == [
        "history.jsonl",
        "model",
    ]
    page = (collected / "report.html").read_text()
    assert "In study apart, 4 hospitals trained one network together over 1 round," in page
    assert "/hidden/place" not in page


def test_the_report_command_makes_it_again_without_images(folder: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())

    result = CliRunner().invoke(app, ["report", str(folder), "--json"])

    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"report": str(folder / "report.html")}
    assert "federation report" in (folder / "report.html").read_text()
    assert sorted(path.name for path in folder.iterdir()) == sorted([*before, "report.html"])


def test_a_run_with_predictions_keeps_its_own_report(folder: Path) -> None:
    assert holds_only_a_history(folder)
    (folder / "seed-0" / "central").mkdir()
    (folder / "seed-0" / "central" / "predictions.parquet").touch()
    assert not holds_only_a_history(folder)


def test_a_run_that_has_not_ended_is_refused(folder: Path) -> None:
    arm = folder / "seed-0" / "federated"
    lines = (arm / "history.jsonl").read_text().splitlines(keepends=True)
    (arm / "history.jsonl").write_text("".join(lines[:-1]))
    assert read_history(arm)[-1]["event"] == "round"
    with pytest.raises(HistoryError, match="No finished federated run"):
        write_federation_report(folder)
    assert not holds_only_a_history(folder) and not (folder / "report.html").exists()


def test_a_folder_without_settings_or_history_is_refused(study: Study, tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match=r"No study\.json"):
        write_federation_report(tmp_path)
    assert not holds_only_a_history(tmp_path)
    keep_study(study, tmp_path)
    with pytest.raises(HistoryError, match="No finished federated run"):
        write_federation_report(tmp_path)
    with pytest.raises(fedlens.FedLensError):
        fedlens.write_report(tmp_path)
