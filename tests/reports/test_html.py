from __future__ import annotations

import base64
import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from fedlens.reports.comparison import ArmPredictions, compare
from fedlens.reports.explanation_comparison import ExplanationComparison
from fedlens.reports.headline import headline, tiles
from fedlens.reports.html import ReportInput, main_arm, render_report, save_report
from fedlens.reports.paper import IDENTICAL_NOTE, REPORTED_NOTE, percent
from fedlens.reports.shares import Share

from .conftest import Page, fake_arms, fake_predictions, flat


@pytest.fixture(scope="module")
def content(report: ReportInput) -> str:
    return render_report(report)


@pytest.fixture(scope="module")
def page(content: str) -> Page:
    return Page(content)


def test_the_page_is_whole_and_has_every_section(page: Page) -> None:
    assert page.open == []
    sections = [attributes["id"] for attributes in page.all("section")]
    assert sections == [
        "results", "gains", "classes", "parts", "curves", "quality", "explanations", "data", "made", "limits"
    ]  # fmt: skip
    links = [str(attributes["href"]) for attributes in page.all("a")]
    assert links == [f"#{section}" for section in sections]


def test_the_page_stands_alone(page: Page, content: str) -> None:
    addresses = [tag.get("src") or tag.get("srcset") for name in ("img", "source") for tag in page.all(name)]
    assert len(addresses) > 20
    assert all(str(address).startswith("data:image/") for address in addresses)
    assert not {name for name, _ in page.tags} & {"script", "link", "iframe", "object"}
    assert "http:" not in content and "https:" not in content
    assert not re.search(r"url\(|@import", content)


def test_images_have_alternatives_and_tables_have_headers(page: Page) -> None:
    assert all(str(image["alt"]).strip() for image in page.all("img"))
    assert all(header.get("scope") for header in page.all("th"))
    assert page.all("html")[0]["lang"] == "en"
    bars = next(image["alt"] for image in page.all("img") if "Bar chart of Accuracy" in str(image["alt"]))
    assert "94.6, 94.1, 93.8, 93.9 reported by the paper" in str(bars)


def test_ours_and_the_papers_figures_are_told_apart(page: Page, report: ReportInput) -> None:
    text = flat(page.text)
    assert text.count("measured here") >= 4 and text.count("reported by the paper") >= 3
    assert REPORTED_NOTE in text and IDENTICAL_NOTE in text
    assert flat(headline(report.comparison, "federated")) in text
    assert all(tile.value in page.text for tile in tiles(report.comparison, "federated"))


def test_audit_findings_come_worst_first_and_repeats_are_counted(page: Page) -> None:
    text = flat(page.text)
    places = [
        text.index(title) for title in ("copies with different labels", "source cue", "patients unknown")
    ]
    assert places == sorted(places)
    assert "6293 images. And 1 more of this kind" in text
    assert "training.batch_size" in text and "fedlens compare paper.toml" in text


def test_names_cannot_break_out_of_the_page(report: ReportInput) -> None:
    evil = '"><script>alert(1)</script><img src=x onerror="alert(2)">{{ 7*7 }}$\\frac{'
    predictions = fake_predictions()
    evil_predictions = dataclasses.replace(
        predictions,
        classes=(evil, *predictions.classes[1:]),
        hospitals=np.where(predictions.hospitals == "A", evil, predictions.hospitals),
        sources=np.where(predictions.sources == "brain_mri", evil, predictions.sources),
    )
    items = tuple(
        dataclasses.replace(
            item,
            case=dataclasses.replace(
                item.case,
                true=evil,
                predicted=evil,
                next_class=evil,
                hospital=evil,
                source=evil,
                image_id=evil,
            ),
            why=evil,
        )
        for item in report.gallery[:2]
    )
    arms = [ArmPredictions(0, arm, evil_predictions) for arm in ("federated", f"local-{evil}")]
    hostile = ReportInput(
        title=evil,
        study={evil: {evil: evil}},
        comparison=compare(arms, resamples=100),
        shares=(Share(evil, evil, evil, "train", 3),),
        audit={
            "images": 3,
            "findings": [{"severity": "note", "title": evil, "detail": evil, "images": [evil]}],
        },
        gallery=items,
        command=evil,
        versions={evil: evil},
        created=evil,
        notes=(evil,),
    )
    page = Page(render_report(hostile))
    assert page.open == []
    assert not page.all("script")
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert all(str(image["src"]).startswith("data:image/") for image in page.all("img"))
    assert page.text.count(evil) >= 10


def test_explanation_quality_stands_beside_what_knows_nothing(
    page: Page, explanations: ExplanationComparison
) -> None:
    (row,) = [cells for cells in page.rows if cells[0] == "Explainable federated" and "×" in cells[3]]
    energy = explanations.summary("explainable", "pooled", "energy")
    assert energy is not None and row[2].startswith(percent(energy.mean))
    (random,) = [cells for cells in page.rows if cells[0] == "A random map"]
    assert random[3] == "1.00×"
    text = flat(page.text)
    assert "Arras" in text and "higher is better" in text and "lower is better" in text
    assert any(cells[0] == "Hospital A" and "120 of 300" in cells for cells in page.rows)


def test_an_effect_that_is_not_there_is_said_not_to_be(page: Page) -> None:
    changes = {cells[0].split()[0]: cells for cells in page.rows if "no effect seen" in " ".join(cells)}
    assert "no effect seen" in changes["Accuracy"][2], "the field arm has the federated arm's predictions"
    (energy,) = [
        cells for cells in page.rows if cells[0].startswith("Energy inside") and "better" in cells[1]
    ]
    assert "p < 0.01" not in energy[2] or "no effect" not in energy[2]


def test_the_gallery_says_why_a_map_strays_and_what_came_next(page: Page) -> None:
    text = flat(page.text)
    for kind in ("Right", "Wrong", "Uncertain", "Straying"):
        assert f" {kind} " in text
    assert "Strays: 41 % of the heat lies on hairs" in text
    assert "· next " in text


def test_a_single_run_uses_the_same_page_with_less_in_it(tmp_path: Path) -> None:
    comparison = compare([ArmPredictions(0, "federated", fake_predictions())], resamples=100)
    save_report(tmp_path / "report.html", ReportInput("One run", {}, comparison))
    page = Page((tmp_path / "report.html").read_text())
    sections = [attributes["id"] for attributes in page.all("section")]
    assert sections == ["results", "classes", "parts", "made", "limits"]
    assert "training report" in page.text
    assert IDENTICAL_NOTE not in flat(page.text)
    assert "with one seed" in page.text


def test_hospitals_alone_can_be_reported_too() -> None:
    arms = [entry for entry in fake_arms() if entry.arm.startswith("local-")]
    comparison = compare(arms, resamples=100)
    assert main_arm(comparison) == "local"
    assert Page(render_report(ReportInput("Alone", {}, comparison))).open == []


def test_the_headline_does_not_call_noise_a_difference() -> None:
    same = fake_predictions("central")
    comparison = compare(
        [ArmPredictions(0, "central", same), ArmPredictions(0, "federated", same)], resamples=100
    )
    assert "cannot tell from none" in headline(comparison, "federated")
    worse = compare(
        [ArmPredictions(0, "central", same), ArmPredictions(0, "federated", fake_predictions("local-D"))],
        resamples=100,
    )
    assert "clearly worse" in headline(worse, "federated")


def test_gallery_pictures_are_in_the_page(page: Page, report: ReportInput) -> None:
    shown = {str(image["src"]).rpartition(",")[2] for image in page.all("img")}
    for item in report.gallery:
        assert base64.b64encode(item.overlay_png).decode() in shown
        assert item.case.image_id in page.text


def test_the_same_input_gives_the_same_page(report: ReportInput, content: str) -> None:
    assert render_report(report) == content
