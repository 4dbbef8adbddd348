"""Pages in a real browser: an application served on loopback, and Chromium looking at it."""

from __future__ import annotations

import contextlib
import queue
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from fedlens.viewer.serving import listening, server_at
from fedlens.viewer.settings import ViewerSettings

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
WIDE = {"width": 1366, "height": 768}
PHONE = {"width": 360, "height": 740}
_PATIENCE = 30.0
_PATIENCE_OF_PAGE = 10_000.0


@contextlib.contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """An application on a free port of loopback, served as the command does it; gives its address."""
    settings = ViewerSettings(port=0)
    addresses: queue.Queue[str] = queue.Queue()
    with listening(settings) as port:
        server = server_at(app, settings, port, ready=addresses.put, say=lambda line: None)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [port]}, daemon=True)
        thread.start()
        try:
            yield addresses.get(timeout=_PATIENCE).rstrip("/")
        finally:
            server.should_exit = True
            thread.join(_PATIENCE)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium without a window; the test is skipped where there is none."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("no chromium is installed; make test installs it as root on Debian")
    expect.set_options(timeout=_PATIENCE_OF_PAGE)
    # Its sandbox needs rights that containers and root do not have.
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield found
        finally:
            found.close()


class Watched:
    """A browser's pages, and all that they complain of.

    Args:
        browser: Opens them.
        address: Of the application.
    """

    def __init__(self, browser: Browser, address: str) -> None:
        self.address = address
        self.complaints: list[str] = []
        self._browser = browser
        self._contexts: list[BrowserContext] = []

    def page(self, *, phone: bool = False, dark: bool = False, **options: Any) -> Page:
        """An empty page: wide, or a phone's with fingers."""
        context = self._browser.new_context(
            viewport=PHONE if phone else WIDE,
            is_mobile=phone,
            has_touch=phone,
            color_scheme="dark" if dark else "light",
            base_url=self.address,
            **options,
        )
        context.set_default_timeout(_PATIENCE_OF_PAGE)
        self._contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: self._complain(said.type, f"{said.text} {said.location['url']}"))
        page.on("pageerror", lambda error: self._complain("error", str(error)))
        page.on("request", lambda request: self._outside(request.url))
        return page

    def close(self) -> None:
        """Close all pages."""
        for context in self._contexts:
            context.close()

    def _complain(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)

    def _outside(self, url: str) -> None:
        if not url.startswith((self.address, "blob:", "data:")):
            self.complaints.append(f"asks for {url}")


def sideways(page: Page) -> int:
    """Pixels by which a page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


def shot(page: Page, folder: Path, name: str) -> Path:
    """A picture of what is seen of a page."""
    path = folder / f"{name}.png"
    page.screenshot(path=path)
    return path


def faint_texts(page: Page) -> list[str]:
    """Texts that are seen on a page with less contrast than WCAG 2.2 AA asks for, and their ratio."""
    found: list[str] = page.evaluate(_FAINT)
    return found


def nameless(page: Page) -> list[str]:
    """Links and controls of a page that a screen reader has no name for, as their HTML."""
    found: list[str] = page.evaluate(_NAMELESS)
    return found


_FAINT = r"""() => {
    const parts = (text) => text.match(/[\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b]
        .map((v) => v / 255)
        .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
        .reduce((sum, v, index) => sum + v * [0.2126, 0.7152, 0.0722][index], 0);
    const ground = (element) => {
        for (let one = element; one; one = one.parentElement) {
            const colour = parts(getComputedStyle(one).backgroundColor);
            if (colour.length < 4 || colour[3] === 1) return colour;
        }
        return parts(getComputedStyle(document.body).backgroundColor);
    };
    const faint = [];
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const element = walk.currentNode.parentElement;
        const text = walk.currentNode.textContent.trim();
        if (!text || !element.checkVisibility() || element.closest("script, noscript")) continue;
        const style = getComputedStyle(element);
        const size = parseFloat(style.fontSize);
        const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
        const [a, b] = [light(parts(style.color)), light(ground(element))].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < (large ? 3 : 4.5)) faint.push(`${text.slice(0, 40)}: ${ratio.toFixed(2)}`);
    }
    return faint;
}"""

_NAMELESS = """() => [...document.querySelectorAll("a[href], button, input, select, textarea, canvas, img")]
    .filter((one) => one.checkVisibility() && one.type !== "hidden")
    .filter((one) => {
        const labels = [...(one.labels ?? [])].map((label) => label.textContent).join("");
        const pictures = [...one.querySelectorAll("img")].map((image) => image.alt).join("");
        const own = one.tagName === "SELECT" || one.tagName === "TEXTAREA" ? "" : one.textContent;
        if (one.tagName === "IMG") return !one.hasAttribute("alt");
        return !(labels + pictures + own + (one.getAttribute("aria-label") ?? "")).trim();
    })
    .map((one) => one.outerHTML.slice(0, 200))
"""
