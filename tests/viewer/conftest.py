"""Fixtures of the viewer's tests: a small run, its application, and a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from tests.untrained_run import make_run
from tests.viewer.browser import Watched, chromium, served

from fedlens.viewer.app import Services, create_app
from fedlens.viewer.opening import opened
from fedlens.viewer.settings import ViewerSettings


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder over phantoms."""
    return make_run(tmp_path_factory.mktemp("viewed"))


@pytest.fixture(scope="module")
def services(run: Path) -> Iterator[Services]:
    """What its pages stand on; shared by a module's tests."""
    settings = ViewerSettings(reviewer="Dr Test", per_page=10, largest_upload=1_000_000)
    with opened(run, settings) as found:
        yield found


@pytest.fixture(scope="module")
def address(services: Services) -> Iterator[str]:
    """Where its pages are served."""
    with served(create_app(services)) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium."""
    with chromium() as found:
        yield found


@pytest.fixture
def watched(browser: Browser, address: str) -> Iterator[Watched]:
    """Pages of one test, which fails where they complain of anything."""
    pages = Watched(browser, address)
    yield pages
    pages.close()
    assert not pages.complaints
