"""Every address of the viewer's case pages, without a browser."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from tests.imaging.test_dicom import made, written

from fedlens.viewer.app import Services, create_app
from fedlens.viewer.case import Case, CaseQuery
from fedlens.viewer.opening import opened
from fedlens.viewer.settings import ViewerSettings

PAGE = {"Accept": "text/html"}
HOSTILE = "<img src=x onerror=alert('1')>\u202e&amp;.png"


@pytest.fixture(scope="module")
def client(services: Services) -> Iterator[TestClient]:
    with TestClient(create_app(services), base_url="http://127.0.0.1", follow_redirects=False) as found:
        yield found


@pytest.fixture
def case(services: Services) -> Case:
    return services.store.page(CaseQuery(origin="study", order="title"), 10).rows[0].case


def token(client: TestClient) -> str:
    found = re.search(r'name="csrf" content="([^"]+)"', client.get("/", headers=PAGE).text)
    assert found
    return found[1]


def png(seed: int = 0, side: int = 60) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side), np.uint8)
    return bytes(cv2.imencode(".png", pixels)[1].tobytes())


def film(seed: int = 5) -> bytes:
    """A chest film of 12 bits that says whose it is."""
    values = np.random.default_rng(seed).integers(0, 4096, (80, 64)).astype(np.uint16)
    return written(
        made(values, PatientName="Quijote", PatientID="47110815", Modality="DX", BitsStored=12, HighBit=11)
    )


def send(client: TestClient, data: bytes, name: str) -> dict[str, object]:
    answer = client.post("/upload", files={"files": (name, data)}, headers={"X-CSRF-Token": token(client)})
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()["files"][0]
    return found


def test_the_list_is_a_page_of_cases_that_lead_to_their_own_page(client: TestClient) -> None:
    page = client.get("/", headers=PAGE)
    links = re.findall(r'class="open" href="(/case/[^"]+)"', page.text)
    assert page.status_code == 200 and 0 < len(links) <= 10
    assert client.get(links[0], headers=PAGE).status_code == 200


def test_later_pages_hold_other_cases(client: TestClient) -> None:
    pages = [client.get(f"/?page={number}&order=title", headers=PAGE).text for number in (1, 2)]
    first, second = (set(re.findall(r'class="open" href="/case/([^"?]+)', page)) for page in pages)
    assert first and second and not first & second
    assert "Page 1 of" in pages[0] and 'rel="next"' in pages[0] and 'rel="prev"' in pages[1]


@pytest.mark.parametrize(
    "query", ["page=0", "page=-1", "page=x", "page=9999999", "advice=x", "order=x", "search=x"]
)
def test_a_query_that_means_nothing_shows_a_list_all_the_same(client: TestClient, query: str) -> None:
    assert client.get(f"/?{query}", headers=PAGE).status_code == 200


def test_searched_words_stay_out_of_addresses_and_filter(client: TestClient, case: Case) -> None:
    words = case.title.upper()
    answer = client.post("/search", data={"csrf": token(client), "text": words, "origin": "study"})
    assert answer.status_code == 303
    place = answer.headers["location"]
    assert "origin=study" in place and words.lower() not in place.lower()
    page = client.get(place, headers=PAGE).text
    assert case.case_id in page and page.count('class="open"') < 10
    assert f"/case/{case.case_id}{place[1:].replace('&', '&amp;')}" in page


def test_a_search_that_is_forgotten_or_empty_finds_everything(client: TestClient) -> None:
    answer = client.post("/search", data={"csrf": token(client), "text": "  "})
    assert answer.headers["location"] == "/"


def test_the_case_page_says_what_to_do_and_how_likely_each_class_is(
    client: TestClient, services: Services, case: Case
) -> None:
    page = client.get(f"/case/{case.case_id}", headers=PAGE).text
    judged = services.store.case(case.case_id)
    assert judged and judged.prediction and judged.prediction.advice
    assert 'class="advice ' + judged.prediction.advice.kind in page
    for label, _ in judged.prediction.probabilities:
        assert f'<span class="label">{label}</span>' in page
    assert "Dr Test" in page and '<dialog id="help"' in page


def test_pixels_are_the_file_s_own(client: TestClient, services: Services, case: Case) -> None:
    answer = client.get(f"/case/{case.case_id}/pixels")
    image = json.loads(answer.headers["x-image"])
    assert services.library
    expected = services.library.image(case).pixels
    values = np.frombuffer(answer.content, np.uint8)
    assert (image["height"], image["width"]) == expected.shape[:2] and image["bits"] == 8
    assert np.array_equal(values, expected.ravel())


def test_a_dicom_film_keeps_its_sixteen_bits(client: TestClient) -> None:
    result = send(client, film(), "film.dcm")
    answer = client.get(f"/case/{result['case']}/pixels")
    image = json.loads(answer.headers["x-image"])
    values = np.frombuffer(answer.content, "<u2")
    assert image["bits"] == 16 and values.size == 80 * 64 and np.unique(values).size > 256


def test_a_map_is_square_and_speaks_for_the_class_that_was_asked_for(
    client: TestClient, services: Services, case: Case
) -> None:
    assert services.library
    for label in services.library.classes[:2]:
        answer = client.get(
            f"/case/{case.case_id}/map/{services.library.methods[0]}", params={"label": label}
        )
        told = json.loads(answer.headers["x-map"])
        assert told["label"] == label and len(answer.content) == told["size"] ** 2


def test_pictures_and_outlines(client: TestClient, case: Case) -> None:
    for part in ("thumbnail", "picture"):
        answer = client.get(f"/case/{case.case_id}/{part}")
        pixels = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
        assert answer.headers["content-type"] == "image/jpeg" and pixels is not None
    for polygon in client.get(f"/case/{case.case_id}/outline").json()["polygons"]:
        assert all(0 <= x <= 1 and 0 <= y <= 1 for x, y in polygon)
    assert len(client.get("/colours").content) == 768


def test_neighbours_are_confirmed_and_others(client: TestClient, case: Case) -> None:
    part = client.get(f"/case/{case.case_id}/neighbours?part=1", headers=PAGE).text
    whole = client.get(f"/case/{case.case_id}/neighbours", headers=PAGE).text
    assert "<html" not in part and "<html" in whole
    assert f'href="/case/{case.case_id}"' not in part


@pytest.mark.parametrize(
    "path",
    [
        "/case/nothing",
        "/case/nothing/pixels",
        "/case/nothing/thumbnail",
        "/case/nothing/map/grad-cam",
        "/case/nothing/outline",
        "/case/nothing/picture",
        "/case/nothing/neighbours",
        "/case/..%2f..%2fetc%2fpasswd",
        "/case/%00/pixels",
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/docs",
        "/openapi.json",
    ],
)
def test_what_is_not_there_is_a_404_for_people_and_scripts(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404
    page = client.get(path, headers=PAGE)
    assert page.status_code == 404 and "passwd" not in page.text


def test_unknown_methods_and_classes_have_no_map(client: TestClient, services: Services, case: Case) -> None:
    assert services.library
    method = services.library.methods[0]
    for path in (f"map/no-cam?label={services.library.classes[0]}", f"map/{method}?label=no-class"):
        assert client.get(f"/case/{case.case_id}/{path}").status_code == 404


def test_an_upload_gives_a_judged_case_at_once(client: TestClient, services: Services) -> None:
    result = send(client, png(1), "scan.png")
    case = services.store.case(str(result["case"]))
    assert case and case.origin == "upload" and case.prediction and not result["problem"]
    assert case.title == "scan.png" and case.file.name == case.case_id
    assert case.file.stat().st_mode & 0o777 == 0o600
    page = client.get(f"/case/{case.case_id}", headers=PAGE).text
    assert str(result["said"]) in page


def test_the_same_file_again_is_the_same_case(client: TestClient, services: Services) -> None:
    first, again = send(client, png(2), "one.png"), send(client, png(2), "two.png")
    assert first["case"] == again["case"] and again["said"] == first["said"]
    assert len(list(services.uploads.iterdir())) == len({path.name for path in services.uploads.iterdir()})
    assert services.store.page(CaseQuery(text="two.png"), 10).total == 0


def test_every_frame_is_a_case(client: TestClient, services: Services) -> None:
    frames = np.random.default_rng(8).integers(0, 4096, (3, 40, 40)).astype(np.uint16)
    result = send(client, written(made(frames, Modality="MR")), "stack.dcm")
    assert result["frames"] == 3
    rows = services.store.page(CaseQuery(text="stack.dcm"), 10).rows
    assert sorted(row.case.frame for row in rows) == [0, 1, 2]


def test_what_cannot_be_read_is_named_and_not_kept(client: TestClient, services: Services) -> None:
    before = services.store.page(CaseQuery(), 10).total
    for data in (b"no image", film()[:300]):
        result = send(client, data, "torn.png")
        assert result["problem"] and not result["case"]
    assert services.store.page(CaseQuery(), 10).total == before


def test_hostile_names_are_only_text(client: TestClient, services: Services) -> None:
    result = send(client, png(4), f"../../etc/{HOSTILE}")
    case = services.store.case(str(result["case"]))
    assert case and case.title == HOSTILE.replace("\u202e", "")
    for path in ("/?order=newest", f"/case/{case.case_id}"):
        page = client.get(path, headers=PAGE).text
        assert "<img src=x" not in page and "&lt;img src=x" in page
    assert all(path.parent == services.uploads for path in services.uploads.iterdir())


def test_a_browser_without_scripts_gets_pages(client: TestClient) -> None:
    answer = client.post(
        "/upload",
        data={"csrf": token(client)},
        files=[("files", ("a.png", png(6))), ("files", ("<b>.png", b"no"))],
        headers=PAGE,
    )
    assert answer.status_code == 200 and answer.text.count("<li") >= 2
    assert "&lt;b&gt;.png" in answer.text and 'href="/case/' in answer.text


def test_a_file_that_is_too_large_is_refused(client: TestClient) -> None:
    headers = {"X-CSRF-Token": token(client)}
    answer = client.post("/upload", files={"files": ("a.png", bytes(2_000_000))}, headers=headers)
    assert answer.status_code == 413


def test_a_review_is_kept_shown_and_exported(client: TestClient, services: Services, case: Case) -> None:
    assert services.library
    label = services.library.classes[1]
    form = {"csrf": token(client), "verdict": "disagree", "label": label, "note": "<i>odd</i> =1+1"}
    answer = client.post(f"/case/{case.case_id}/review", data=form)
    assert answer.status_code == 303
    page = client.get(answer.headers["location"], headers=PAGE).text
    assert "&lt;i&gt;odd&lt;/i&gt;" in page and f"Disagrees: {label}" in page
    exported = client.get("/reviews.csv")
    assert "attachment" in exported.headers["content-disposition"]
    rows = [row for row in csv.DictReader(io.StringIO(exported.text)) if row["case_id"] == case.case_id]
    assert rows and rows[-1]["label"] == label and rows[-1]["reviewer"] == "Dr Test"


def test_agreeing_names_the_likeliest_class_and_goes_on_to_the_next_case(
    client: TestClient, services: Services
) -> None:
    query = CaseQuery(origin="study", order="title", reviewed="no")
    first, second = (row.case.case_id for row in services.store.page(query, 2).rows)
    client.get(f"/case/{first}", headers=PAGE)
    address = f"/case/{first}/review?origin=study&order=title&reviewed=no"
    form = {"csrf": token(client), "verdict": "agree", "label": "", "then": "next"}
    answer = client.post(address, data=form)
    assert answer.headers["location"] == f"/case/{second}?origin=study&reviewed=no&order=title"
    judged = services.store.case(first)
    assert judged and judged.prediction and judged.prediction.likeliest
    assert services.store.reviews(first)[0].label == judged.prediction.likeliest[0]


@pytest.mark.parametrize(
    "form",
    [
        {"verdict": "perhaps"},
        {},
        {"verdict": "disagree", "label": "no such class"},
        {"verdict": "agree", "note": "x" * 2001},
    ],
)
def test_a_review_that_says_nothing_known_is_refused(
    client: TestClient, services: Services, case: Case, form: dict[str, str]
) -> None:
    before = services.store.reviews(case.case_id)
    answer = client.post(f"/case/{case.case_id}/review", data={"csrf": token(client), **form}, headers=PAGE)
    assert answer.status_code == 422 and "<html" in answer.text
    assert services.store.reviews(case.case_id) == before


def test_nothing_changes_without_the_token(client: TestClient, case: Case) -> None:
    for path in (f"/case/{case.case_id}/review", "/upload", "/search"):
        assert client.post(path, data={"verdict": "agree"}).status_code == 403


def test_patients_are_shown_and_stand_in_no_address_and_no_audit_line(
    client: TestClient, services: Services, run: Path
) -> None:
    result = send(client, film(), "Quijote_Alonso.dcm")
    page = client.get(f"/case/{result['case']}", headers=PAGE).text
    assert "47110815" in page
    for address in re.findall(r'(?:href|src|action)="([^"]+)"', page):
        assert "quijote" not in address.lower() and "47110815" not in address
    audit = (run / "viewer" / "audit.jsonl").read_text().lower()
    assert "view case" in audit and "quijote" not in audit and "47110815" not in audit
    assert services.audit.verify() == 0


def test_pages_load_nothing_from_elsewhere_and_hold_no_code(client: TestClient, case: Case) -> None:
    for path in ("/", f"/case/{case.case_id}", "/study", "/nothing"):
        page = client.get(path, headers=PAGE).text
        assert not re.search(r'(?:src|href|action)="(?!/|#)', page)
        assert not re.search(r'<style|\sstyle=|\son[a-z]+="|<script(?![^>]*src=)', page)


def test_a_run_without_a_network_has_pages_too(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_text("")
    with opened(tmp_path, ViewerSettings()) as services:
        assert services.library is None
        with TestClient(create_app(services), base_url="http://127.0.0.1") as client:
            assert "no trained network yet" in client.get("/", headers=PAGE).text
            result = send(client, png(7), "early.png")
            assert client.get(f"/case/{result['case']}", headers=PAGE).status_code == 200
            assert client.get(f"/case/{result['case']}/pixels").status_code == 200
            assert client.get(f"/case/{result['case']}/map/grad-cam").status_code == 404
