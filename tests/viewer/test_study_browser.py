"""The study's page in real Chromium: it follows a study that runs, and disturbs nobody who reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.viewer.browser import Watched, faint_texts, nameless, served, sideways
from tests.viewer.studies import (
    begun_study,
    keep_settings,
    make_arm,
    make_sealed_arm,
    make_troubled_arm,
    predict,
    study_app,
)

PATIENCE = 20_000
LOOKS = pytest.mark.parametrize("look", [{}, {"dark": True}, {"phone": True}], ids=["light", "dark", "phone"])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """An unsealed study after two of five rounds."""
    return begun_study(tmp_path / "run")


@pytest.fixture
def watched(browser: Browser, run: Path, tmp_path: Path) -> Iterator[Watched]:
    """Pages that must not complain of anything."""
    with served(study_app(run, tmp_path)) as address:
        pages = Watched(browser, address)
        yield pages
        pages.close()
    assert not pages.complaints


def opened(page: Page) -> Page:
    """The study's page, marked so that loading it again would show."""
    page.goto("/study")
    page.evaluate("window.mark = 'still the same page'")
    expect(page.locator(".where")).to_contain_text("round 2 of 5 done")
    return page


def followed(page: Page, text: str) -> None:
    """Wait until the page says so by itself."""
    expect(page.locator(".where")).to_contain_text(text, timeout=PATIENCE)
    assert page.evaluate("window.mark") == "still the same page"


def test_a_round_that_ends_appears_and_is_read_out(watched: Watched, run: Path) -> None:
    page = opened(watched.page())
    said = page.locator("#study-said")
    assert said.get_attribute("aria-live") == "polite" and said.inner_text() == ""
    dots = page.locator("#study-training .plot").first.locator("circle")
    assert dots.count() == 2
    make_arm(run, until=3)
    followed(page, "round 3 of 5 done")
    expect(said).to_contain_text("Federated, round 3 of 5 is done: validation accuracy")
    expect(dots).to_have_count(3)
    expect(page.locator("#study-rounds tbody tr").first).to_contain_text("3")


def test_focus_folds_and_place_stay_where_they_are(watched: Watched, run: Path) -> None:
    # Else a smooth scroll would still be under way when the place is measured.
    page = opened(watched.page(phone=True, reduced_motion="reduce"))
    page.locator("#study-classes summary").click()
    table = page.locator("#study-hospitals .scroll")
    table.focus()
    table.evaluate("box => { box.scrollLeft = 60; }")
    page.evaluate("document.getElementById('study-hospitals').scrollIntoView()")
    before = page.evaluate("document.getElementById('study-hospitals').getBoundingClientRect().top")
    make_arm(run, until=3)
    followed(page, "round 3 of 5 done")
    assert page.locator("#study-classes").get_attribute("open") is not None
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Hospitals"
    assert table.evaluate("box => box.scrollLeft") == 60
    after = page.evaluate("document.getElementById('study-hospitals').getBoundingClientRect().top")
    assert abs(after - before) < 2


def test_what_has_not_changed_is_left_alone(watched: Watched, run: Path) -> None:
    page = opened(watched.page())
    page.evaluate("document.getElementById('study-links').mark = true")
    page.evaluate("document.getElementById('study-rounds').mark = true")
    make_arm(run, until=3)
    followed(page, "round 3 of 5 done")
    assert page.evaluate("document.getElementById('study-links').mark") is True
    assert page.evaluate("document.getElementById('study-rounds').mark") is None


def test_a_finished_arm_brings_its_figures_to_the_open_page(watched: Watched, run: Path) -> None:
    page = opened(watched.page())
    predict(make_arm(run))
    expect(page.locator("#study-results")).to_contain_text("measured here", timeout=PATIENCE)
    expect(page.locator("#study-tiles")).to_contain_text("Test accuracy")
    assert page.evaluate("window.mark") == "still the same page"


def test_a_hidden_page_asks_for_nothing(watched: Watched, run: Path) -> None:
    page = opened(watched.page())
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    hide = """(hidden) => {
        Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(hide, True)
    page.wait_for_timeout(200)
    asked.clear()
    page.wait_for_timeout(2500)
    assert not asked
    make_arm(run, until=3)
    page.evaluate(hide, False)
    followed(page, "round 3 of 5 done")


def test_the_end_of_the_server_is_told_and_does_not_end_the_page(
    browser: Browser, run: Path, tmp_path: Path
) -> None:
    with served(study_app(run, tmp_path)) as address:
        pages = Watched(browser, address)
        page = opened(pages.page())
    expect(page.locator("#study-lost")).to_contain_text("does not answer", timeout=PATIENCE)
    pages.close()


@LOOKS
def test_each_state_fits_has_contrast_and_names(
    browser: Browser, run: Path, tmp_path: Path, look: dict[str, bool]
) -> None:
    sealed, troubled = tmp_path / "sealed", tmp_path / "troubled"
    keep_settings(sealed, federation={"rounds": 3})
    make_sealed_arm(sealed)
    keep_settings(troubled)
    make_troubled_arm(troubled)
    for arm in ("federated", "explainable"):
        predict(make_arm(run, arm))
    for folder in (run, sealed, troubled):
        with served(study_app(folder, tmp_path)) as address:
            pages = Watched(browser, address)
            page = pages.page(**look)
            page.goto("/study")
            for fold in page.locator("summary").all():
                fold.click()
            assert sideways(page) <= 0 and not faint_texts(page) and not nameless(page)
            pages.close()
        assert not pages.complaints


def test_the_keyboard_reaches_arms_folds_and_tables(watched: Watched, run: Path) -> None:
    make_arm(run, "explainable", until=1)
    page = watched.page()
    page.goto("/study")
    seen: set[str] = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.add(str(page.evaluate("document.activeElement.id || document.activeElement.ariaLabel")))
    assert {"study-arm-1", "study-arm-2", "study-cases", "Hospitals", "Rounds"} <= seen
    page.locator("#study-arm-1").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#study-training h2")).to_have_text("Training: Federated")
