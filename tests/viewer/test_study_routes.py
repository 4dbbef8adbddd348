"""Requests for the study's page: what is sent anew, what stays, and what no request reaches."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from tests.reports.conftest import Page
from tests.viewer.guarded import PAGE, visit
from tests.viewer.studies import (
    EVIL,
    append,
    begun_study,
    keep_settings,
    make_arm,
    make_troubled_arm,
    predict,
    study_app,
)

from fedlens.files import write_text

LIVE = "/study/live"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """An unsealed study after two of five rounds."""
    return begun_study(tmp_path / "run")


@pytest.fixture
def client(run: Path, tmp_path: Path) -> Iterator[TestClient]:
    with visit(study_app(run, tmp_path)) as found:
        yield found


def tag_of(client: TestClient) -> str:
    return str(client.get(LIVE).headers["etag"])


def settled(client: TestClient) -> str:
    """The tag, once figures on test images are measured."""
    until = time.monotonic() + 20
    while re.search("igures (on test images )?are being measured", client.get(LIVE).text):
        assert time.monotonic() < until
        time.sleep(0.02)
    return tag_of(client)


def test_the_page_is_whole_and_asks_for_nothing_from_elsewhere(client: TestClient) -> None:
    answer = client.get("/study", headers=PAGE)
    assert answer.status_code == 200 and "style-src 'self'" in answer.headers["content-security-policy"]
    page = Page(answer.text)
    assert not page.open and not any("style" in attributes for _, attributes in page.tags)
    tags = [tag for name in ("script", "link", "img") for tag in page.all(name)]
    assert all(str(tag.get("src") or tag.get("href")).startswith("/static/") for tag in tags)
    assert "round 2 of 5 done" in answer.text and "Running" in answer.text


def test_an_unchanged_study_is_not_sent_again(client: TestClient) -> None:
    tag = settled(client)
    answer = client.get(LIVE, headers={"If-None-Match": tag})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)


def test_a_round_that_ends_changes_what_is_sent(client: TestClient, run: Path) -> None:
    tag = settled(client)
    make_arm(run, until=3)
    answer = client.get(LIVE, headers={"If-None-Match": tag})
    assert answer.status_code == 200 and "round 3 of 5 done" in answer.text


def test_the_end_of_an_arm_brings_figures_on_test_images(client: TestClient, run: Path) -> None:
    settled(client)
    predict(make_arm(run))
    settled(client)
    text = client.get(LIVE).text
    assert "Comparison on test images" in text and "Test accuracy" in text and "Explanation quality" in text


def test_an_arm_is_chosen_by_its_name_and_anything_else_is_the_current_one(
    client: TestClient, run: Path
) -> None:
    make_arm(run, "central", until=1)
    assert "Training: Central" in client.get(f"{LIVE}?seed=0&arm=central").text
    assert 'data-live="/study/live?seed=0&amp;arm=central"' in client.get("/study?seed=0&arm=central").text
    current = client.get(LIVE).text
    for other in ("?arm=../../../etc", "?seed=7&arm=central", "?arm=explainable"):
        assert client.get(LIVE + other).text == current
    assert client.get(f"{LIVE}?seed=x&arm=central").status_code == 422


def test_names_and_reasons_of_other_machines_are_escaped(tmp_path: Path) -> None:
    run = tmp_path / "run"
    keep_settings(run)
    make_troubled_arm(run)
    with visit(study_app(run, tmp_path)) as client:
        text = client.get("/study", headers=PAGE).text
    assert "<script>alert" not in text and "{{ 7*7 }}" in text
    assert text.count("&lt;script&gt;") > 5
    assert EVIL not in text


def test_half_a_surrogate_pair_does_not_lose_the_page(client: TestClient, run: Path) -> None:
    append(run / "seed-0" / "federated", '{"event": "failed", "round": 3, "reason": "a\\ud800b"}\n')
    answer = client.get("/study", headers=PAGE)
    assert answer.status_code == 200 and "a?b" in answer.text


def test_files_of_a_fixed_list_can_be_had_and_no_others(client: TestClient, run: Path) -> None:
    write_text(run / "report.html", "<p>report</p>")
    write_text(run / "secret.txt", "secret")
    text = client.get("/study").text
    assert 'href="/study/files/report.html"' in text and "summary.csv" not in text
    answer = client.get("/study/files/report.html")
    assert answer.content == b"<p>report</p>"
    assert answer.headers["content-disposition"].startswith("attachment")
    history = client.get("/study/files/history.jsonl").text
    assert [json.loads(line)["event"] for line in history.splitlines()][:2] == ["start", "round"]
    for name in ("secret.txt", "study.json", "summary.csv", "..%2Fsecret.txt", "%2Fetc%2Fpasswd"):
        assert client.get(f"/study/files/{name}").status_code == 404


def test_opening_the_page_is_noted_and_asking_again_is_not(client: TestClient, tmp_path: Path) -> None:
    client.get("/study")
    client.get(LIVE)
    client.get("/study/files/history.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [(line["actor"], line["action"], line["detail"]) for line in lines] == [
        ("Dr Test", "view study", ""),
        ("Dr Test", "view study", "history.jsonl"),
    ]


def test_a_study_that_has_not_begun_has_a_page(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with visit(study_app(run, tmp_path)) as client:
        text = client.get("/study").text
        assert "Waiting" in text and "No round has begun yet." in text
        keep_settings(run)
        make_arm(run, until=1)
        assert "round 1 of 5 done" in client.get(LIVE).text
