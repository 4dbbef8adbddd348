"""What the study's page says of rounds, hospitals, seals, maps and arms."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tests.viewer.studies import (
    EVIL,
    ROUNDS,
    keep_settings,
    make_arm,
    make_sealed_arm,
    make_troubled_arm,
    predict,
    view_of,
)

from fedlens.errors import HistoryError
from fedlens.files import write_text
from fedlens.viewer.study_charts import Axis, Chart, Series, line_chart
from fedlens.viewer.study_files import StudyFiles
from fedlens.viewer.study_hospitals import attendance
from fedlens.viewer.study_results import Results, ResultsDesk
from fedlens.viewer.study_shown import ShownArm
from fedlens.viewer.study_view import StudyView, duration


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> StudyView:
    """An unsealed study with all that goes wrong."""
    run = tmp_path_factory.mktemp("plain")
    keep_settings(run)
    make_troubled_arm(run)
    return view_of(run)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> StudyView:
    """D is missing in round 2, and B after its update is in the sum of round 3."""
    run = tmp_path_factory.mktemp("sealed")
    keep_settings(run, federation={"rounds": 3})
    make_sealed_arm(run)
    return view_of(run)


def shown_of(view: StudyView) -> ShownArm:
    assert view.shown is not None
    return view.shown


def chart_of(charts: tuple[Chart, ...], title: str) -> Chart:
    return next(chart for chart in charts if chart.title == title)


def measured(run: Path) -> Results:
    """Figures on test images, once they are all measured."""
    files, desk = StudyFiles(run), ResultsDesk(run)
    desk.results(files.arms(), files.study())
    desk.wait()
    return desk.results(files.arms(), files.study())


def test_tiles_show_the_last_measured_round_with_its_interval(plain: StudyView) -> None:
    accuracy, f1, area, images = plain.tiles
    assert accuracy.name == "Validation accuracy" and accuracy.note.startswith("95\u00a0%: ")
    assert (f1.name, area.name) == ("F1 (macro)", "AUROC (macro)")
    assert (images.value, images.note[-7:]) == ("80", "round 5")


def test_rounds_stand_newest_first_with_failures_where_they_happened(plain: StudyView) -> None:
    shown = shown_of(plain)
    assert [(row.number, bool(row.failed)) for row in shown.rounds] == [
        (5, False),
        (4, False),
        (4, True),
        (3, False),
        (2, False),
        (1, False),
    ]
    assert (shown.failures, shown.kept, shown.older) == (1, 5, ())
    assert ("Trained without", "C", "in rounds 2 and 4") in shown.without


def test_each_hospital_answers_or_drops_out_round_by_round(plain: StudyView) -> None:
    grid = shown_of(plain).attendance
    assert grid is not None
    assert (grid.columns, grid.each, grid.last) == (ROUNDS, 1, ROUNDS)
    kinds = {name: [cell.kind for cell in cells] for name, cells, _ in grid.rows}
    assert kinds == {
        "A": ["answered"] * 5,
        EVIL: ["answered"] * 5,
        "C": ["answered", "missing", "answered", "missing", "answered"],
        "D": ["answered", "answered", "refused", "refused", "refused"],
    }
    words = {name: said for name, _, said in grid.rows}
    assert words["A"] == "answered every time"
    assert words["C"] == "did not answer in rounds 2 and 4"
    assert words["D"] == "answer refused in rounds 3–5"
    assert grid.rows[2][1][1].text == "Round 2: did not answer"


def test_a_long_study_shows_the_worst_of_a_few_rounds_in_each_column() -> None:
    start = {"event": "start", "hospitals": ["A"], "rounds": 150, "sealed": False}
    there = {"participants": ["A"], "hospitals": {"A": {}}, "missing": {}, "refused": {}}
    away = {"participants": ["A"], "hospitals": {}, "missing": {"A": "It is away."}, "refused": {}}
    rounds = [{"event": "round", "round": n, **(away if n == 5 else there)} for n in range(1, 8)]
    grid = attendance([start, *rounds])
    assert (grid.columns, grid.each) == (50, 3)
    ((_, cells, words),) = grid.rows
    assert [(cell.place, cell.kind) for cell in cells] == [(0, "answered"), (1, "missing"), (2, "answered")]
    assert cells[0].text == "Rounds 1–3: answered" and cells[1].text == "Round 5: did not answer"
    assert words == "did not answer in round 5"


def test_an_unsealed_study_shows_figures_of_single_hospitals(plain: StudyView) -> None:
    shown = shown_of(plain)
    lines = {line.name: line for line in shown.hospitals}
    assert lines["A"].own is not None and lines["A"].images == ("30", "20", "–")
    assert (lines["C"].answered, lines["C"].last) == ("3 of 5", "round 5")
    assert lines["D"].trouble.startswith("Round 5: Hospital D sent images = 0")
    titles = [chart.title for chart in shown.hospital_charts]
    assert titles == ["Validation accuracy of each hospital", "Validation loss of each hospital"]
    assert [name for name, _, _ in shown.hospital_charts[0].legend] == ["A", EVIL, "C", "D"]
    assert shown.seals is not None and not shown.seals.sealed and not shown.seals.opened


def test_a_sealed_study_shows_none_and_says_who_opened_its_sums(sealed: StudyView) -> None:
    shown = shown_of(sealed)
    assert all(line.own is None and line.images == ("–", "–", "–") for line in shown.hospitals)
    assert [chart.title for chart in shown.hospital_charts] == ["Megabytes sent by each hospital"]
    seals = shown.seals
    assert seals is not None and seals.sealed and seals.number == 3
    assert dict(seals.facts)["Fewest hospitals in an opened sum"] == "3 of 4"
    training, validation = seals.opened
    assert (training.step, training.over, training.unmasked) == ("Training", tuple("ABCD"), tuple("ACD"))
    assert (validation.step, validation.asked) == ("Validation", 4)
    assert any(note.startswith("Sealed: the coordinator could read sums only") for note in seals.notes)
    assert float(shown.total[0]) > 0


def test_bytes_of_all_steps_are_counted(sealed: StudyView) -> None:
    shown = shown_of(sealed)
    sent = sum(float(line.up) for line in shown.hospitals)
    assert sent == pytest.approx(float(shown.total[0]), abs=0.1)


def test_curves_have_a_line_for_training_and_one_for_validation(plain: StudyView) -> None:
    charts = shown_of(plain).charts
    loss = chart_of(charts, "Loss (cross entropy)")
    assert [(name, dotted) for name, _, dotted in loss.legend] == [("Training", True), ("Validation", False)]
    accuracy = chart_of(charts, "Validation accuracy")
    assert accuracy.across == "Round" and len(accuracy.hits) == ROUNDS
    assert accuracy.hits[0].text.startswith("round 1\nValidation: ")
    assert "Last values: Validation" in accuracy.said


def test_maps_measured_over_the_rounds_are_set_against_chance(tmp_path: Path) -> None:
    keep_settings(tmp_path)
    make_arm(tmp_path)
    explained = shown_of(view_of(tmp_path)).explanations
    assert explained is not None
    assert (explained.number, explained.images, explained.hospitals) == (5, 80, 4)
    assert [row.number for row in explained.moved] == [5, 4, 2]
    assert explained.facts[0][0] == "Heat inside the outline" and "times chance" in explained.facts[0][1]
    assert explained.facts[-1] == ("Maps that stray to where no disease can be", "100.0 %")
    times = chart_of(explained.charts, "Inside outlines, times chance")
    assert times.rule and chart_of(explained.charts, "Stray maps").ys[0].text == "0 %"


def test_arms_stand_side_by_side_while_a_comparison_runs(tmp_path: Path) -> None:
    keep_settings(tmp_path, compare={"arms": ("federated", "explainable"), "seeds": (0,), "bootstrap": 100})
    predict(make_arm(tmp_path, "federated"))
    make_arm(tmp_path, "explainable", until=2)
    results = measured(tmp_path)
    view = view_of(tmp_path, results=results)
    assert [(row.word, row.shown) for row in view.arms] == [("Finished", False), ("Running", True)]
    federated, explainable = view.arms
    assert float(federated.test) > 50 and explainable.test == "–" and view.unfinished
    assert view.compared is not None
    assert [row.arm for row in view.compared.rows] == ["federated"]
    assert view.compared.quality is not None and not view.compared.quality.changes
    legend = chart_of(shown_of(view).charts, "Validation accuracy").legend
    assert [name for name, _, _ in legend] == ["Explainable federated", "Federated"]
    assert view.tiles[0].name == "Validation accuracy"

    chosen = view_of(tmp_path, results=results, arm="federated")
    assert chosen.query == "seed=0&arm=federated" and chosen.tiles[0].name == "Test accuracy"
    assert shown_of(chosen).state.arm == "federated"

    predict(make_arm(tmp_path, "explainable"))
    write_text(tmp_path / "report.html", "")
    done = view_of(tmp_path, results=measured(tmp_path))
    assert done.compared is not None and done.compared.quality is not None and done.compared.quality.changes
    assert not done.unfinished and shown_of(done).state.arm == "federated"


def test_hospitals_alone_are_averaged_only_once_all_have_finished(tmp_path: Path) -> None:
    keep_settings(tmp_path, compare={"bootstrap": 100})
    for arm in ("federated", "local-A", "local-B", "local-C"):
        predict(make_arm(tmp_path, arm, until=1))
    comparison = measured(tmp_path).comparison
    assert comparison is not None and comparison.arms == ("federated",) and not comparison.gains
    predict(make_arm(tmp_path, "local-D", until=1))
    comparison = measured(tmp_path).comparison
    assert comparison is not None and comparison.arms == ("local", "federated")
    assert [gain.hospital for gain in comparison.gains] == ["A", "B", "C", "D", ""]


def test_figures_that_cannot_be_measured_are_said_to_be_missing(tmp_path: Path) -> None:
    keep_settings(tmp_path)
    write_text(make_arm(tmp_path) / "predictions.parquet", "torn")
    results = measured(tmp_path)
    assert results.comparison is None and "predictions.parquet" in results.problem
    assert view_of(tmp_path, results=results).compared is None


def test_figures_are_measured_again_only_where_an_arm_has_changed(tmp_path: Path) -> None:
    keep_settings(tmp_path, compare={"bootstrap": 100})
    folder = make_arm(tmp_path)
    files, desk = StudyFiles(tmp_path), ResultsDesk(tmp_path)
    versions = []
    for images in (0, 0, 120, 120, 80):
        if images:
            predict(folder, images)
        desk.results(files.arms(), files.study())
        desk.wait()
        found = desk.results(files.arms(), files.study())
        versions.append((found.version, found.comparison.images if found.comparison else 0))
    assert versions[0] == versions[1] == (1, 0)
    assert versions[2][1] == 120 and versions[-1][1] == 80


def test_a_damaged_history_is_named(tmp_path: Path) -> None:
    keep_settings(tmp_path)
    write_text(make_arm(tmp_path) / "history.jsonl", "nonsense\n")
    with pytest.raises(HistoryError, match="line 1"):
        view_of(tmp_path)


def test_a_finished_round_is_read_out(tmp_path: Path) -> None:
    keep_settings(tmp_path)
    make_arm(tmp_path, until=2)
    view = view_of(tmp_path)
    assert view.said.startswith("Federated, round 2 of 5 is done: validation accuracy ")
    assert view.left and view.ends >= view.told > "2"
    assert [name for name, _ in view.sections] == [
        "training",
        "hospitals",
        "seals",
        "explanations",
        "rounds",
        "links",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (3, "less than a minute"),
        (80, "about 1 min"),
        (1500, "about 25 min"),
        (3590, "about 1 h"),
        (8000, "about 2 h 15 min"),
    ],
)
def test_time_left_is_no_more_exact_than_it_is_known(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_chart_bridges_what_was_not_measured_and_needs_something_to_show() -> None:
    across = Axis(name="Round", before="round ", digits=0)
    gap = line_chart("Loss", [Series("a", 0, [1, 2, 3], [0.5, math.nan, 0.25])], across, Axis(low=0))
    assert gap is not None
    assert gap.lines[0].path.count("L") == 1 and len(gap.lines[0].dots) == 2 and not gap.legend
    assert [tick.text for tick in gap.ys] == ["0", "0.2", "0.4", "0.6"]
    assert [hit.text for hit in gap.hits] == ["round 1\na: 0.500", "round 3\na: 0.250"]
    assert line_chart("Loss", [Series("a", 0, [1], [math.nan])], across, Axis()) is None


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_line_that_never_moves_stays_on_the_chart(value: float) -> None:
    chart = line_chart("Share", [Series("a", 0, [1, 2], [value, value])], Axis(), Axis(share=True))
    assert chart is not None
    heights = {height for _, height in chart.lines[0].dots}
    assert len(heights) == 1 and 12 <= float(heights.pop()) <= 208
    assert all(0 <= float(tick.text.removesuffix(" %")) <= 100 for tick in chart.ys)


def test_hospitals_alone_share_one_place_in_the_legend(tmp_path: Path) -> None:
    keep_settings(tmp_path)
    for arm in ("federated", "local-A", "local-B"):
        make_arm(tmp_path, arm, until=1)
    chart = chart_of(shown_of(view_of(tmp_path, arm="federated")).charts, "Validation accuracy")
    assert [name for name, _, _ in chart.legend] == ["Federated", "Each hospital alone"]
    assert "Hospital B alone: " in chart.hits[0].text
