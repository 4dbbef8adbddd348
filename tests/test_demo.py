"""The demo claims its folder carefully; what it runs is tested end to end elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedlens import demo
from fedlens.comparing import CompareResult
from fedlens.errors import DataError
from fedlens.progress import Progress
from fedlens.study import Study


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[Study]:
    """Small and without training: the studies that would have been compared."""
    studies: list[Study] = []

    def compare(study: Study, *, progress: Progress) -> CompareResult:
        assert study.output is not None
        (study.output).mkdir(parents=True, exist_ok=True)
        (study.output / "report.html").write_text("report")
        studies.append(study)
        return CompareResult(study.output, study.output / "report.html", "table", study.output / "x.csv")

    monkeypatch.setattr(demo, "_IMAGES", 120)
    monkeypatch.setattr(demo, "compare", compare)
    monkeypatch.setattr(demo, "explain_images", lambda *_, **__: [])
    return studies


def test_it_says_what_to_open_and_what_to_run_next(tmp_path: Path, compared: list[Study]) -> None:
    result = demo.run_demo(tmp_path / "demo")

    last = result.next_steps()
    assert result.report.is_file() and str(result.report) in last
    assert "fedlens data import FOLDER" in last and "fedlens compare study.toml" in last
    assert result.as_dict()["table"] == "table"
    assert [study.hospitals.by for study in compared] == ["site"]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, compared: list[Study]) -> None:
    thesis = tmp_path / "thesis.tex"
    thesis.write_text("mine")

    with pytest.raises(DataError, match="holds no demo"):
        demo.run_demo(tmp_path)

    assert list(tmp_path.iterdir()) == [thesis]
    assert compared == []


def test_an_interrupted_demo_goes_on(
    tmp_path: Path, compared: list[Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(demo, "audit", interrupted)
        demo.run_demo(tmp_path / "demo")
    manifest = tmp_path / "demo" / "phantoms" / "manifest.csv"
    drawn = manifest.stat().st_mtime_ns

    demo.run_demo(tmp_path / "demo")

    assert manifest.stat().st_mtime_ns == drawn
    assert len(compared) == 1


@pytest.mark.parametrize("change", [{"finished": True}, {"settings": "older"}])
def test_a_finished_or_outdated_demo_starts_afresh_and_spares_other_files(
    tmp_path: Path, compared: list[Study], change: dict[str, object]
) -> None:
    out = tmp_path / "demo"
    demo.run_demo(out)
    marker = out / "demo.json"
    marker.write_text(json.dumps({**demo._marker(finished=False), **change}))
    (out / "runs" / "demo" / "old").write_text("old")
    (out / "notes.txt").write_text("mine")

    demo.run_demo(out)

    assert not (out / "runs" / "demo" / "old").exists()
    assert (out / "notes.txt").read_text() == "mine"
    assert json.loads(marker.read_bytes())["finished"] is True
