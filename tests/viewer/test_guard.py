"""The guard: what a request must show before a route sees it, and what every answer says."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.websockets import WebSocketDisconnect
from tests.viewer.guarded import (
    ADDRESS,
    PAGE,
    PASSWORD,
    Clock,
    log_in,
    make_accounts,
    make_app,
    make_certificate,
    visit,
)

from fedlens.errors import SettingsError
from fedlens.viewer.guard import user_name
from fedlens.viewer.settings import ViewerSettings

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


def test_everybody_on_loopback_is_the_reviewer(tmp_path: Path) -> None:
    seen = visit(make_app(tmp_path)).get("/").json()
    assert (seen["reviewer"], seen["login"]) == ("Dr Test", False)

    own = visit(make_app(tmp_path, ViewerSettings())).get("/").json()
    assert own["reviewer"] == user_name() != ""


@pytest.mark.parametrize("path", ["/", "/static/missing.css", "/careless", "/broken", "/nothing", "/note"])
def test_every_answer_carries_the_same_headers(tmp_path: Path, path: str) -> None:
    headers = visit(make_app(tmp_path)).get(path).headers

    assert headers["content-security-policy"] == POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    assert "camera=()" in headers["permissions-policy"]
    assert headers["cache-control"] == ("no-cache" if path.startswith("/static/") else "no-store")
    assert "strict-transport-security" not in headers


def test_refusals_carry_them_too(tmp_path: Path) -> None:
    client = visit(make_app(tmp_path))
    for answer in (
        client.get("/", headers={"Host": "evil.example"}),
        client.request("PUT", "/"),
        client.post("/note"),
    ):
        assert answer.status_code in (403, 405, 421)
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["cache-control"] == "no-store"


def test_fault_says_nothing_of_a_patient(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        answer = visit(make_app(tmp_path)).get("/broken")

    assert answer.status_code == 500
    assert "Doe" not in answer.text + caplog.text
    assert "ValueError while answering" in caplog.text
    assert "guarded.py" in caplog.text


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:8765",
        "xn--localhost-",
        "192.168.1.5",
        "a@localhost",
        "localhost/static/?",
        "127.0.0.1:8765/static/",
        "localhost:80:80",
        "[::1",
        "",
    ],
)
def test_foreign_host_name_is_refused(tmp_path: Path, host: str) -> None:
    assert visit(make_app(tmp_path)).get("/", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8765", "[::1]:8765", "[0:0:0::1]"])
def test_own_host_names_are_answered(tmp_path: Path, host: str) -> None:
    assert visit(make_app(tmp_path)).get("/", headers={"Host": host}).status_code == 200


def test_two_host_headers_are_refused(tmp_path: Path) -> None:
    client = visit(make_app(tmp_path))
    assert client.get("/", headers=[("Host", "localhost"), ("Host", "evil.example")]).status_code == 421


def test_names_of_the_certificate_are_answered_and_no_others(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "viewer.hospital.org", "*.ward.org", "10.1.2.3")
    settings = ViewerSettings(host="0.0.0.0", certificate=certificate, key=key)
    client = visit(make_app(tmp_path, settings, make_accounts(tmp_path, "anna")), "https://localhost")

    def status(host: str) -> int:
        return client.get("/login", headers={"Host": host, **PAGE}).status_code

    for host in ("viewer.hospital.org", "Viewer.Hospital.org:8765", "b2.ward.org", "10.1.2.3"):
        assert status(host) == 200
    for host in ("hospital.org", "a.viewer.hospital.org", "ward.org", "a.b.ward.org", "0.0.0.0", "10.1.2.4"):
        assert status(host) == 421


def test_certificate_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text("no certificate")
    settings = ViewerSettings(certificate=tmp_path / "a.pem", key=tmp_path / "a.pem")
    with pytest.raises(SettingsError, match=r"Cannot read the certificate .*a.pem: it is no PEM certificate"):
        make_app(tmp_path, settings)


def test_tls_makes_the_cookie_secure_and_binds_the_host_to_tls(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "viewer.hospital.org")
    app = make_app(tmp_path, ViewerSettings(certificate=certificate, key=key))
    answer = visit(app, "https://viewer.hospital.org:8765").get("/")

    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-fedlens-8765=")
    for part in ("Secure", "HttpOnly", "SameSite=strict", "Path=/"):
        assert part in cookie
    assert "Domain" not in cookie
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    # Other programs of the machine share this name, and may have no TLS.
    assert "strict-transport-security" not in visit(app, "https://localhost:8765").get("/").headers


def test_loopback_cookie_is_for_this_port_and_no_script(tmp_path: Path) -> None:
    cookie = visit(make_app(tmp_path)).get("/").headers["set-cookie"]
    assert cookie.startswith("fedlens-8765=")
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Secure" not in cookie


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "MADEUP"])
def test_other_methods_are_refused(tmp_path: Path, method: str) -> None:
    assert visit(make_app(tmp_path)).request(method, "/").status_code == 405


def test_web_socket_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(WebSocketDisconnect),
        visit(make_app(tmp_path)).websocket_connect("/", headers={"Host": "127.0.0.1"}),
    ):
        pass


class TestForms:
    """What a request that changes something must show."""

    @pytest.fixture
    def page(self, tmp_path: Path) -> Iterator[Page]:
        yield Page(tmp_path)

    def test_token_in_field_or_header_is_accepted(self, page: Page) -> None:
        assert page.note({"csrf": page.token, "note": "a"}) == 200
        assert page.note({"note": "a", "csrf": page.token}) == 200
        assert page.note({"note": "a"}, {"X-CSRF-Token": page.token}) == 200

    def test_token_in_a_form_with_files_is_accepted(self, page: Page) -> None:
        files = [("files", ("a.png", bytes(900_000)))]
        answer = page.client.post("/upload", data={"csrf": page.token}, files=files)
        assert answer.json() == [900_000]

    def test_missing_or_forged_token_is_refused(self, page: Page) -> None:
        forged = page.token[:-1] + ("A" if page.token[-1] != "A" else "B")
        for value in ("", forged, page.token + "A", "é", page.token.swapcase()):
            assert page.note({"csrf": value, "note": "a"}) == 403
            assert page.note({"note": "a"}, {"X-CSRF-Token": value.encode()}) == 403
        assert page.note({"note": "a"}) == 403

    def test_token_of_another_session_is_refused(self, page: Page) -> None:
        other = visit(page.app).get("/").json()["csrf"]
        assert page.note({"csrf": other, "note": "a"}) == 403

    def test_wrong_header_is_not_made_good_by_the_field(self, page: Page) -> None:
        assert page.note({"csrf": page.token, "note": "a"}, {"X-CSRF-Token": "wrong"}) == 403

    def test_token_in_the_address_is_none(self, page: Page) -> None:
        assert page.client.post(f"/note?csrf={page.token}", data={"note": "a"}).status_code == 403

    def test_token_in_a_body_that_is_no_form_is_none(self, page: Page) -> None:
        for kind in ("application/json", "text/plain", "", "multipart/form-data", "application/octet-stream"):
            content = f"csrf={page.token}&note=a"
            answer = page.client.post("/note", content=content, headers={"Content-Type": kind})
            assert answer.status_code == 403

    def test_token_behind_a_large_file_is_too_late(self, page: Page) -> None:
        boundary = "x"
        parts = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
            f'{"a" * 70_000}\r\n--{boundary}\r\nContent-Disposition: form-data; name="csrf"\r\n\r\n'
            f"{page.token}\r\n--{boundary}--\r\n"
        )
        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        assert page.client.post("/upload", content=parts, headers=kind).status_code == 403

    def test_cookie_of_another_server_opens_nothing(self, page: Page, tmp_path: Path) -> None:
        stranger = visit(make_app(tmp_path))
        token = stranger.get("/").json()["csrf"]
        page.client.cookies = stranger.cookies
        assert page.note({"csrf": token, "note": "a"}) == 403

    def test_cookie_that_somebody_planted_is_replaced(self, page: Page) -> None:
        client = visit(page.app)
        client.cookies.set("fedlens-8765", "planted")
        answer = client.get("/")
        assert "fedlens-8765=" in answer.headers["set-cookie"]
        assert "planted" not in answer.headers["set-cookie"]

    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "https://evil.example"},
            {"Origin": "http://127.0.0.1:9999"},
            {"Origin": "https://127.0.0.1:8765"},
            {"Origin": "null"},
            {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
            {"Origin": ADDRESS, "Sec-Fetch-Site": "same-site"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "none"},
        ],
    )
    def test_foreign_origin_is_refused_even_with_the_token(self, page: Page, headers: dict[str, str]) -> None:
        assert page.note({"csrf": page.token, "note": "a"}, headers) == 403

    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": ADDRESS},
            {"Origin": ADDRESS, "Sec-Fetch-Site": "same-origin"},
            {"Origin": "null", "Sec-Fetch-Site": "same-origin"},
        ],
    )
    def test_own_origin_is_accepted(self, page: Page, headers: dict[str, str]) -> None:
        assert page.note({"csrf": page.token, "note": "a"}, headers) == 200

    def test_page_that_stayed_open_for_hours_still_works(self, page: Page) -> None:
        page.clock.now += 4 * 3600
        assert page.note({"csrf": page.token, "note": "a"}) == 200

    def test_refusal_is_a_page_for_people_and_json_for_scripts(self, page: Page) -> None:
        assert page.client.post("/note").json()["problem"] == "The page is too old."
        shown = page.client.post("/note", headers=PAGE)
        assert shown.status_code == 403
        assert "<h1>Forbidden</h1>" in shown.text


class Page:
    """A page that somebody opened on loopback, and its form."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.app = make_app(folder, clock=self.clock)
        self.client = visit(self.app)
        self.token = self.client.get("/").json()["csrf"]

    def note(self, fields: dict[str, str], headers: dict[str, str] | dict[str, bytes] | None = None) -> int:
        return self.client.post("/note", data=fields, headers=headers).status_code


FETCHES = [
    ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 200),
    ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 200),
    ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}, 200),
    ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, 403),
    ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, 403),
    ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}, 403),
]


@pytest.mark.parametrize(("headers", "status"), FETCHES)
def test_other_sites_may_link_and_nothing_more(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    assert visit(make_app(tmp_path)).get("/", headers=headers).status_code == status


def test_too_many_requests_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedlens.viewer.guard._AT_ONCE", 3)
    clock = Clock()
    client = visit(make_app(tmp_path, clock=clock))
    assert [client.get("/").status_code for _ in range(4)] == [200, 200, 200, 429]
    clock.now += 1
    assert client.get("/").status_code == 200


def test_fresh_sessions_bring_a_stranger_no_more_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedlens.viewer.guard._AT_ONCE", 3)
    app = make_app(tmp_path, accounts=make_accounts(tmp_path, "anna"))
    assert [visit(app).get("/login", headers=PAGE).status_code for _ in range(4)] == [200, 200, 200, 429]


class TestSize:
    """Bodies that are larger than the settings allow."""

    @pytest.mark.parametrize("announced", [True, False])
    def test_upload_above_the_limit_is_refused(self, tmp_path: Path, announced: bool) -> None:
        page = Page(tmp_path)

        def parts() -> Iterator[bytes]:
            for _ in range(40):
                yield bytes(100_000)

        headers = {"X-CSRF-Token": page.token, "Content-Type": "multipart/form-data; boundary=x"}
        if announced:
            headers["Content-Length"] = "4000000"
        answer = page.client.post("/upload", content=parts(), headers=headers)
        assert answer.status_code == 413
        assert "larger than the viewer takes" in answer.json()["problem"]

    def test_form_without_files_has_a_smaller_limit(self, tmp_path: Path) -> None:
        page = Page(tmp_path)
        assert page.note({"csrf": page.token, "note": "a" * 100_000}) == 200
        assert page.note({"csrf": page.token, "note": "a" * 200_000}) == 413

    def test_length_that_is_no_number_of_bytes_is_no_way_round(self, tmp_path: Path) -> None:
        page = Page(tmp_path)
        headers = {"X-CSRF-Token": page.token, "Content-Length": "9" * 5000}
        assert page.client.post("/upload", content=b"", headers=headers).status_code == 413


class TestWithAccounts:
    """A viewer that people log in to."""

    @pytest.mark.parametrize("path", ["/", "/waiting", "/nothing", "/static", "/login/", "//login"])
    def test_stranger_is_led_to_the_login_page(self, tmp_path: Path, path: str) -> None:
        client = visit(make_app(tmp_path, accounts=make_accounts(tmp_path, "anna")))
        shown = client.get(ADDRESS + path, headers=PAGE)
        assert (shown.status_code, shown.headers["location"]) == (303, "/login")
        told = client.get(ADDRESS + path)
        assert told.status_code == 401
        assert told.json()["problem"] == "Nobody is logged in."
        assert "set-cookie" not in told.headers

    def test_stranger_may_send_nothing_but_the_login_form(self, tmp_path: Path) -> None:
        client = visit(make_app(tmp_path, accounts=make_accounts(tmp_path, "anna")))
        client.get("/login", headers=PAGE)
        for path in ("/note", "/upload", "/logout"):
            assert client.post(path, data={"csrf": "x", "note": "a"}).status_code == 401

    def test_static_files_and_the_login_page_are_open(self, tmp_path: Path) -> None:
        client = visit(make_app(tmp_path, accounts=make_accounts(tmp_path, "anna")))
        assert client.get("/static/missing.css").status_code == 404
        assert client.get("/login", headers=PAGE).status_code == 200

    def test_idle_session_ends_although_its_page_keeps_asking(self, tmp_path: Path) -> None:
        clock = Clock()
        settings = ViewerSettings(idle_minutes=10)
        client = visit(make_app(tmp_path, settings, make_accounts(tmp_path, "anna"), clock))
        assert log_in(client, "anna") == 303
        clock.now += 9 * 60
        assert client.get("/").json()["reviewer"] == "anna"
        clock.now += 9 * 60
        assert client.get("/waiting").status_code == 200
        clock.now += 2 * 60
        assert client.get("/waiting").status_code == 401
        assert client.get("/").status_code == 401

    def test_removed_account_and_changed_password_end_sessions(self, tmp_path: Path) -> None:
        accounts = make_accounts(tmp_path, "anna", "ben", "eve")
        app = make_app(tmp_path, accounts=accounts)
        clients = {name: visit(app) for name in accounts.names()}
        assert [log_in(client, name) for name, client in clients.items()] == [303] * 3
        accounts.remove("anna")
        accounts.add("ben", PASSWORD, replace=True)

        assert [client.get("/").status_code for client in clients.values()] == [401, 401, 200]

    def test_nobody_is_let_in_while_the_accounts_cannot_be_read(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = visit(make_app(tmp_path, accounts=make_accounts(tmp_path, "anna")))
        assert log_in(client, "anna") == 303
        (tmp_path / "accounts.json").unlink()

        assert client.get("/").status_code == 401
        assert "Cannot read the accounts" in caplog.text
