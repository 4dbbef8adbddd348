"""Slower checks of the case pages in real Chromium: fingers, log-in, long lists, large films."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Route, expect
from tests.imaging.test_dicom import made, written
from tests.viewer.browser import Watched, faint_texts, served, sideways
from tests.viewer.test_app import film, png
from tests.viewer.test_browser_core import drawn, open_case

from fedlens.viewer.accounts import Accounts
from fedlens.viewer.app import Services, create_app
from fedlens.viewer.opening import opened
from fedlens.viewer.settings import ViewerSettings

pytestmark = pytest.mark.full

PASSWORD = "correct horse battery"


@pytest.fixture
def guarded(browser: Browser, tmp_path: Path) -> Iterator[Watched]:
    """Pages of a run without a network that people log in to."""
    (tmp_path / "history.jsonl").write_text("")
    Accounts(tmp_path / "accounts.json").add("m.weber", PASSWORD)
    with (
        opened(tmp_path, ViewerSettings(accounts=tmp_path / "accounts.json")) as services,
        served(create_app(services)) as address,
    ):
        pages = Watched(browser, address)
        yield pages
        pages.close()


class Fingers:
    """Fingers on a page, as the browser gets them from the system."""

    def __init__(self, page: Page) -> None:
        self._session = page.context.new_cdp_session(page)

    def __call__(self, kind: str, *points: tuple[float, float]) -> None:
        fingers = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        self._session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})


def middle(page: Page) -> tuple[float, float]:
    box = page.locator(".stage canvas").bounding_box()
    assert box
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_fingers_zoom_and_move_the_image(watched: Watched) -> None:
    page = watched.page(phone=True)
    open_case(page)
    stage, (x, y), touch = page.locator(".stage"), middle(page), Fingers(page)
    touch("touchStart", (x - 30, y), (x + 30, y))
    for far in (40, 60, 90):
        touch("touchMove", (x - far, y), (x + far, y))
    touch("touchEnd")
    expect(stage).to_have_attribute("data-zoom", "3.000")
    before = stage.get_attribute("data-x")
    touch("touchStart", (x, y))
    for step in (20, 40):
        touch("touchMove", (x + step, y))
    touch("touchEnd")
    expect(stage).not_to_have_attribute("data-x", str(before))
    page.get_by_role("button", name="Reset").click()
    expect(stage).to_have_attribute("data-zoom", "1.000")


def test_one_finger_moves_the_page_while_the_whole_image_is_seen(watched: Watched) -> None:
    page = watched.page(phone=True)
    open_case(page)
    assert page.locator(".stage canvas").evaluate("one => getComputedStyle(one).touchAction") == "pan-y"
    page.get_by_role("button", name="Zoom in").click()
    expect(page.locator(".stage.close")).to_be_visible()
    assert page.locator(".stage canvas").evaluate("one => getComputedStyle(one).touchAction") == "none"


def test_brightness_and_contrast_have_sliders(watched: Watched) -> None:
    page = watched.page()
    open_case(page)
    stage, at_first = page.locator(".stage"), drawn(page)
    page.locator("#level").fill("70")
    page.locator("#span").fill("80")
    expect(stage).to_have_attribute("data-centre", "26")
    expect(stage).to_have_attribute("data-span", "111")
    assert drawn(page) != at_first
    page.get_by_role("button", name="Reset").click()
    expect(page.locator("#level")).to_have_value("50")
    assert drawn(page) == at_first


def test_a_file_beyond_the_limit_is_not_even_sent(watched: Watched) -> None:
    page = watched.page()
    page.goto("/")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    large = {"name": "large.dcm", "mimeType": "application/dicom", "buffer": bytes(1_200_000)}
    page.set_input_files("#files", [large])  # type: ignore[arg-type]
    expect(page.locator(".sent li")).to_contain_text("too large")
    assert not any("upload" in url for url in sent)


def test_a_large_film_is_shrunk_and_keeps_its_greys(browser: Browser, run: Path, tmp_path: Path) -> None:
    values = np.add.outer(np.arange(2600), np.arange(2200)).astype(np.uint16)
    (tmp_path / "film.dcm").write_bytes(
        written(made(values, Modality="DX", WindowCenter=2400, WindowWidth=2000))
    )
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("viewer"))
    with (
        opened(tmp_path / "run", ViewerSettings(), paths=[tmp_path / "film.dcm"]) as services,
        served(create_app(services)) as address,
    ):
        pages = Watched(browser, address)
        page = pages.page()
        page.goto("/?origin=folder")
        page.locator(".rows .open").click()
        page.wait_for_selector(".stage[data-state=ready]")
        expect(page.locator("#window")).to_contain_text("Window 2400 ± 1000")
        shown = page.request.get(page.url.partition("?")[0] + "/pixels").headers["x-image"]
        assert json.loads(shown)["height"] == 2048 and json.loads(shown)["bits"] == 16
        pages.close()
        assert not pages.complaints


def test_a_patient_is_found_and_the_search_lasts_from_case_to_case(watched: Watched) -> None:
    page = watched.page()
    page.goto("/")
    films = [
        {"name": f"film{number}.dcm", "mimeType": "application/dicom", "buffer": film(number)}
        for number in (31, 32)
    ]
    page.set_input_files("#files", films)  # type: ignore[arg-type]
    expect(page.locator(".sent li a")).to_have_count(2)
    page.keyboard.press("/")
    page.locator("#text").fill("quijote film3")
    page.locator("#text").press("Enter")
    expect(page.locator(".rows li")).to_have_count(2)
    page.locator(".rows .open").first.click()
    page.wait_for_selector(".stage[data-state=ready]")
    expect(page.locator("a[rel=prev]")).to_have_count(0)
    page.keyboard.press("j")
    expect(page.locator("a[rel=next]")).to_have_count(0)
    page.wait_for_selector(".stage[data-state=ready]")
    assert "quijote" not in page.url.lower()
    page.get_by_role("link", name="List").click()
    expect(page.locator("#text")).to_have_value("quijote film3")
    expect(page.locator(".rows li")).to_have_count(2)


def test_filters_and_pages(watched: Watched, services: Services) -> None:
    page = watched.page()
    page.goto("/")
    page.select_option("#origin", "study")
    page.select_option("#order", "title")
    page.get_by_role("button", name="Show", exact=True).click()
    first = page.locator(".rows .open").all_text_contents()
    assert first == sorted(first, key=str.lower) and len(first) == services.settings.per_page
    page.get_by_role("link", name="Next").click()
    expect(page.locator(".pages")).to_contain_text("Page 2")
    assert page.locator(".rows .open").all_text_contents() != first
    expect(page.locator("#origin")).to_have_value("study")


def test_a_page_that_is_left_open_says_when_all_are_judged(watched: Watched) -> None:
    page = watched.page()
    left = iter([3, 0])

    def with_waiting(route: Route) -> None:
        text = route.fetch().text()
        told = '<span id="waiting" role="status" data-waiting="4">4 not judged yet</span>'
        route.fulfill(
            body=text.replace('<span id="total">', f'{told}<span id="total">'), content_type="text/html"
        )

    page.route("**/waiting", lambda route: route.fulfill(json={"waiting": next(left, 0)}))
    page.route(f"{watched.address}/", with_waiting)
    page.goto("/")
    expect(page.locator("#waiting")).to_contain_text("3 not judged yet")
    expect(page.locator("#waiting a")).to_contain_text("All are judged")


def test_a_viewer_that_has_gone_is_named(watched: Watched) -> None:
    page = watched.page()
    page.goto("/")
    page.route("**/upload", lambda route: route.abort())
    scan = {"name": "scan.png", "mimeType": "image/png", "buffer": png(41)}
    page.set_input_files("#files", [scan])  # type: ignore[arg-type]
    expect(page.locator(".sent li")).to_contain_text("out of reach")
    watched.complaints.clear()


@pytest.mark.parametrize("width", [360, 480, 768, 1001, 1280, 2200])
def test_no_width_moves_sideways(watched: Watched, width: int) -> None:
    page = watched.page()
    page.set_viewport_size({"width": width, "height": 800})
    page.goto("/")
    assert sideways(page) <= 0
    open_case(page)
    assert sideways(page) <= 0
    assert page.locator(".stage canvas").evaluate("one => one.clientHeight") >= 200


def test_logging_in_and_out(guarded: Watched) -> None:
    for dark in (False, True):
        page = guarded.page(dark=dark)
        page.goto("/")
        assert page.url.endswith("/login") and not faint_texts(page)
        page.get_by_label("Name").fill("m.weber")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_text("no trained network yet")).to_be_visible()
        expect(page.locator(".who")).to_contain_text("m.weber")
        page.get_by_role("button", name="Log out").click()
        page.goto("/")
        assert page.url.endswith("/login")
    assert not guarded.complaints


@pytest.mark.real
def test_real_dicom_files_are_drawn(watched: Watched, shared_data: Path) -> None:
    page = watched.page()
    page.goto("/")
    files = sorted((shared_data / "dicom").glob("MR_small*.dcm"))
    page.set_input_files("#files", files)
    links = page.locator(".sent li a")
    expect(links).to_have_count(len(files))
    for place in [link.get_attribute("href") for link in links.all()]:
        page.goto(str(place))
        page.wait_for_selector(".stage[data-state=ready]")
