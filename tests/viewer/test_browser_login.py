"""Logging in with a real browser, whose own rules for cookies and origins the guard relies on."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from tests.viewer.browser import Watched
from tests.viewer.guarded import PASSWORD, make_accounts, make_app, make_certificate
from tests.viewer.test_serving import served

from fedlens.viewer.settings import ViewerSettings


@pytest.mark.parametrize("secure", [False, True])
def test_reviewer_logs_in_and_out(browser: Browser, tmp_path: Path, secure: bool) -> None:
    certificate, key = make_certificate(tmp_path, "localhost", "127.0.0.1") if secure else (None, None)
    accounts = make_accounts(tmp_path, "anna")
    settings = ViewerSettings(port=0, accounts=tmp_path / "accounts.json", certificate=certificate, key=key)
    with served(make_app(tmp_path, settings, accounts), settings) as address:
        watched = Watched(browser, address)
        page = watched.page(ignore_https_errors=secure)
        page.goto("/")
        assert page.url == f"{address}login"
        page.get_by_label("Name").fill("anna")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        expect(page.locator("body")).to_contain_text('"reviewer":"anna"')
        assert page.url == address
        page.goto("/page")
        page.get_by_role("button", name="Log out").click()
        assert page.url == f"{address}login"
        page.goto("/")
        assert page.url == f"{address}login"
        # What "/" answers here is no page, so the browser looks for its icon elsewhere.
        assert not [said for said in watched.complaints if "favicon.ico" not in said]
        watched.close()


def test_wrong_password_is_said_beside_the_form(browser: Browser, tmp_path: Path) -> None:
    settings = ViewerSettings(port=0, accounts=tmp_path / "accounts.json")
    accounts = make_accounts(tmp_path, "anna")
    with served(make_app(tmp_path, settings, accounts), settings) as address:
        watched = Watched(browser, address)
        page = watched.page(phone=True)
        page.goto("/login")
        assert page.evaluate("document.activeElement.id") == "name"
        page.keyboard.type("anna")
        page.keyboard.press("Tab")
        page.keyboard.type("wrong password!")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("Name or password is wrong.")
        watched.close()
