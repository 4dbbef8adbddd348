"""What people do with the case pages, in real Chromium."""

from __future__ import annotations

import csv
import io
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import Page, expect
from tests.viewer.browser import Watched, faint_texts, nameless, sideways
from tests.viewer.test_app import film, png


def open_case(page: Page) -> None:
    """The first study case of the list, drawn."""
    page.goto("/?origin=study&order=title")
    page.locator(".rows .open").first.click()
    page.wait_for_selector(".stage[data-state=ready]")


def drawn(page: Page) -> str:
    """The canvas as a picture, once it is drawn anew."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return str(page.evaluate("document.querySelector('.stage canvas').toDataURL()"))


@pytest.mark.parametrize("look", [{}, {"dark": True}, {"phone": True}], ids=["light", "dark", "phone"])
def test_each_page_loads_quietly_and_fits(watched: Watched, look: dict[str, bool]) -> None:
    page = watched.page(**look)
    for path in ("/", "/study"):
        page.goto(path, wait_until="networkidle")
        assert sideways(page) <= 0
    open_case(page)
    expect(page.locator("[data-part]")).to_have_attribute("data-state", "ready")
    assert sideways(page) <= 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_texts_have_contrast_and_controls_have_names(watched: Watched, dark: bool) -> None:
    page = watched.page(dark=dark)
    page.goto("/", wait_until="networkidle")
    assert not faint_texts(page) and not nameless(page)
    open_case(page)
    page.get_by_label("Disagree").check()
    page.keyboard.press("?")
    assert not faint_texts(page) and not nameless(page)


def test_tab_reaches_everything_and_shows_where_it_is(watched: Watched) -> None:
    page = watched.page()
    open_case(page)
    expect(page.locator("[data-part]")).to_have_attribute("data-state", "ready")
    seen = []
    for _ in range(80):
        page.keyboard.press("Tab")
        here = page.evaluate(
            """() => {
                const one = document.activeElement;
                const outline = getComputedStyle(one).outlineStyle;
                return one === document.body ? null : [one.id || one.textContent.trim(), outline];
            }"""
        )
        if here is None:
            break
        seen.append(here)
    reached = {name for name, _ in seen}
    wanted = {"opacity", "overlay", "map-label", "method", "level", "span", "agree", "note", "files", "Reset"}
    assert wanted <= reached
    assert all(outline != "none" for _, outline in seen)


def test_the_first_screen_holds_image_advice_and_classes(watched: Watched) -> None:
    for phone in (False, True):
        page = watched.page(phone=phone)
        open_case(page)
        for part in (".stage canvas", ".advice .title", ".bars li >> nth=1", ".set"):
            expect(page.locator(part).first).to_be_in_viewport(ratio=0.9)


def test_the_slider_changes_pixels(watched: Watched) -> None:
    page = watched.page()
    open_case(page)
    faint = []
    for value in ("0", "40", "100"):
        page.locator("#opacity").fill(value)
        faint.append(drawn(page))
    assert len(set(faint)) == 3
    page.locator("#overlay").uncheck()
    assert drawn(page) == faint[0]


def test_maps_and_windows_are_what_the_command_line_draws(watched: Watched) -> None:
    page = watched.page()
    page.goto("/")
    values = np.random.default_rng(3).integers(0, 256, (8, 8), np.uint8)
    enlarged = page.evaluate(
        """async (values) => {
            const { enlarge } = await import("/static/stage.js");
            return [...enlarge(new Uint8Array(values), 8, 50, 30)];
        }""",
        values.ravel().tolist(),
    )
    expected = cv2.resize(values.astype(np.float32), (50, 30), interpolation=cv2.INTER_LINEAR)
    assert np.abs(np.array(enlarged).reshape(30, 50) - expected).max() <= 0.51
    table = page.evaluate(
        """async () => {
            const { windowTable } = await import("/static/stage.js");
            return [...windowTable(16, 1000, 400)];
        }"""
    )
    steps = np.clip((np.arange(65536) - 800) / 400, 0, 1) * 255
    assert np.abs(np.array(table) - steps).max() <= 0.51


def test_another_method_or_class_is_another_map(watched: Watched) -> None:
    page = watched.page()
    open_case(page)
    before, stage = drawn(page), page.locator(".stage")
    for control in ("#method", "#map-label"):
        wanted = page.locator(f"{control} option").nth(1).get_attribute("value")
        assert wanted
        page.select_option(control, wanted)
        expect(stage).to_have_attribute("data-method" if control == "#method" else "data-label", wanted)
        expect(stage).to_have_attribute("data-map", "ready")
    assert drawn(page) != before


def test_the_mouse_zooms_moves_and_sets_the_window(watched: Watched) -> None:
    page = watched.page()
    open_case(page)
    stage, box = page.locator(".stage"), page.locator(".stage canvas").bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    at_first = drawn(page)
    page.mouse.move(x, y)
    page.mouse.wheel(0, -400)
    expect(stage).not_to_have_attribute("data-zoom", "1.000")
    page.mouse.down()
    page.mouse.move(x + 50, y + 20)
    page.mouse.up()
    expect(stage).to_have_attribute("data-x", "50")
    page.mouse.down(button="right")
    page.mouse.move(x + 90, y - 30)
    page.mouse.up(button="right")
    expect(stage).not_to_have_attribute("data-span", "255")
    expect(stage).to_have_attribute("data-x", "50")
    page.mouse.dblclick(x, y)
    expect(stage).to_have_attribute("data-zoom", "1.000")
    expect(stage).to_have_attribute("data-span", "255")
    assert drawn(page) == at_first


def test_files_dropped_or_chosen_give_a_result(watched: Watched) -> None:
    page = watched.page()
    page.goto("/")
    files = [
        {"name": "scan.png", "mimeType": "image/png", "buffer": png(21)},
        {"name": "film.dcm", "mimeType": "application/dicom", "buffer": film()},
        {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no image"},
    ]
    page.set_input_files("#files", files)  # type: ignore[arg-type]
    sent = page.locator(".sent li")
    expect(sent.locator("a")).to_have_count(2)
    expect(sent.nth(2)).to_contain_text("not an image")
    sent.nth(1).locator("a").click()
    page.wait_for_selector(".stage[data-state=ready]")
    expect(page.locator(".patient")).to_contain_text("4711")
    expect(page.locator(".bars li").first).to_be_visible()


def test_files_dropped_anywhere_are_sent(watched: Watched) -> None:
    page = watched.page()
    open_case(page)
    dropped = page.evaluate_handle(
        """(bytes) => {
            const carried = new DataTransfer();
            carried.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
            return carried;
        }""",
        list(png(22)),
    )
    page.dispatch_event("body", "dragover", {"dataTransfer": dropped})
    expect(page.locator("body")).to_have_class("dropping")
    page.dispatch_event("body", "drop", {"dataTransfer": dropped})
    expect(page.locator(".sent li a")).to_have_count(1)
    expect(page.locator("body")).not_to_have_class("dropping")


def test_a_review_is_saved_shown_and_exported(watched: Watched) -> None:
    page = watched.page()
    open_case(page)
    page.get_by_label("Disagree").check()
    label = page.locator("#label option").nth(1).get_attribute("value")
    page.select_option("#label", label)
    page.get_by_label("Note").fill("Looks like a shadow\nto me")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".reviews li").first).to_contain_text("Looks like a shadow")
    expect(page.locator(".reviews li").first).to_contain_text("Dr Test")
    with urllib.request.urlopen(f"{watched.address}/reviews.csv") as answer:
        rows = list(csv.DictReader(io.StringIO(answer.read().decode())))
    assert any(row["label"] == label and row["note"].endswith("to me") for row in rows)


def test_the_keyboard_does_it_all(watched: Watched) -> None:
    page = watched.page()
    page.goto("/?origin=study&order=title")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    first = page.url
    page.keyboard.press("Enter")
    page.wait_for_selector(".stage[data-state=ready]")
    stage, case = page.locator(".stage"), page.url.partition("?")[0]
    page.keyboard.press("o")
    expect(stage).to_have_attribute("data-overlay", "off")
    page.keyboard.press("ArrowLeft")
    expect(stage).to_have_attribute("data-opacity", "0.65")
    page.keyboard.press("+")
    expect(stage).to_have_attribute("data-zoom", "1.250")
    page.keyboard.press("0")
    expect(stage).to_have_attribute("data-zoom", "1.000")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("d")
    expect(page.get_by_label("Disagree")).to_be_checked()
    # Letters choose in a list of choices.
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("a")
    page.keyboard.press("Enter")
    expect(page.locator(".reviews .agree").first).to_be_visible()
    page.wait_for_selector(".stage[data-state=ready]")
    page.keyboard.press("j")
    page.wait_for_url(lambda url: not url.startswith(case))
    page.wait_for_selector(".stage[data-state=ready]")
    page.keyboard.press("/")
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.type("jjj?")
    expect(page.locator("#text")).to_have_value("jjj?")
    assert page.url.partition("#")[0] == first


def test_keys_can_be_switched_off(watched: Watched) -> None:
    page = watched.page()
    open_case(page)
    page.keyboard.press("?")
    page.get_by_label("Keys are on").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("o")
    expect(page.locator("#overlay")).to_be_checked()
    page.get_by_role("button", name="Keys").click()
    expect(page.get_by_role("dialog")).to_be_visible()


def test_without_scripts_there_is_an_image_and_a_form(watched: Watched, tmp_path: Path) -> None:
    page = watched.page(java_script_enabled=False)
    page.goto("/?origin=study")
    page.locator(".rows .open").first.click()
    expect(page.locator(".stage img")).to_be_visible()
    page.get_by_label("Agree", exact=True).check()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".reviews .agree").first).to_be_visible()
    page.get_by_role("link", name="Show them").click()
    expect(page.locator(".near li").first).to_be_visible()
