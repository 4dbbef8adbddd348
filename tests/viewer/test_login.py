"""Logging in and out."""

from __future__ import annotations

import json
from pathlib import Path

from starlette.testclient import TestClient
from tests.viewer.guarded import (
    PAGE,
    PASSWORD,
    Clock,
    form_token,
    log_in,
    make_accounts,
    make_app,
    visit,
)

from fedlens.viewer.audit import AuditLog


def audited(folder: Path) -> list[tuple[str, str]]:
    """Actor and action of each line."""
    lines = [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]
    return [(line["actor"], line["action"]) for line in lines]


def sent(client: TestClient, **fields: str) -> str:
    """The page that answers a log-in form."""
    return client.post("/login", data={"csrf": form_token(client), **fields}, headers=PAGE).text


def test_right_password_leads_to_the_cases(tmp_path: Path) -> None:
    client = visit(make_app(tmp_path, accounts=make_accounts(tmp_path, "anna")))
    fields = {"csrf": form_token(client), "name": "anna", "password": PASSWORD}
    answer = client.post("/login", data=fields)

    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert client.get("/").json()["reviewer"] == "anna"
    again = client.get("/login", headers=PAGE)
    assert (again.status_code, again.headers["location"]) == (303, "/")
    assert audited(tmp_path) == [("anna", "log in")]


def test_login_begins_a_new_session(tmp_path: Path) -> None:
    client = visit(make_app(tmp_path, accounts=make_accounts(tmp_path, "anna")))
    token = form_token(client)
    before = dict(client.cookies)
    assert log_in(client, "anna") == 303

    assert set(client.cookies) == set(before) == {"fedlens-8765"}
    assert dict(client.cookies) != before
    assert client.get("/").json()["csrf"] != token
    # The session of before may have been planted by somebody who waits for it to become worth something.
    client.cookies.clear()
    client.cookies.update(before)
    assert client.get("/").status_code == 401


def test_wrong_password_and_unknown_name_look_the_same(tmp_path: Path) -> None:
    client = visit(make_app(tmp_path, accounts=make_accounts(tmp_path, "anna")))
    token = form_token(client)

    def refused(name: str) -> tuple[int, str]:
        fields = {"csrf": token, "name": name, "password": "wrong password!"}
        answer = client.post("/login", data=fields, headers=PAGE)
        return answer.status_code, answer.text

    assert refused("anna") == refused("nobody")
    assert refused("anna")[0] == 401
    assert "Name or password is wrong." in refused("anna")[1]
    assert client.get("/").status_code == 401


def test_name_that_may_be_a_password_is_not_logged(tmp_path: Path) -> None:
    client = visit(make_app(tmp_path, accounts=make_accounts(tmp_path, "anna")))
    log_in(client, PASSWORD, "anna")
    log_in(client, "anna", "wrong password!")

    assert audited(tmp_path) == [("", "log in refused"), ("anna", "log in refused")]
    assert PASSWORD not in (tmp_path / "audit.jsonl").read_text()
    assert AuditLog(tmp_path / "audit.jsonl").verify() == 0


def test_page_shows_nothing_of_what_was_typed(tmp_path: Path) -> None:
    client = visit(make_app(tmp_path, accounts=make_accounts(tmp_path, "anna")))
    page = sent(client, name="<script>alert(1)</script>", password="secret secret")
    assert "alert(1)" not in page
    assert "secret secret" not in page


def test_form_with_a_missing_or_endless_field_is_refused(tmp_path: Path) -> None:
    client = visit(make_app(tmp_path, accounts=make_accounts(tmp_path, "anna")))
    token = form_token(client)
    for fields in (
        {"name": "anna"},
        {"password": PASSWORD},
        {"name": "a" * 65, "password": PASSWORD},
        {"name": "anna", "password": "a" * 1025},
    ):
        assert client.post("/login", data={"csrf": token, **fields}).status_code == 422


def test_login_form_needs_its_token(tmp_path: Path) -> None:
    client = visit(make_app(tmp_path, accounts=make_accounts(tmp_path, "anna")))
    token = form_token(client)
    fields = {"name": "anna", "password": PASSWORD}
    assert client.post("/login", data=fields).status_code == 403
    assert visit(client.app).post("/login", data={**fields, "csrf": token}).status_code == 403


def test_flood_of_wrong_passwords_waits_ever_longer(tmp_path: Path) -> None:
    clock = Clock()
    client = visit(make_app(tmp_path, accounts=make_accounts(tmp_path, "anna", "ben"), clock=clock))
    assert [log_in(client, "anna", "wrong password!") for _ in range(7)] == [401] * 5 + [429] * 2
    fields = {"csrf": form_token(client), "name": "anna", "password": PASSWORD}
    waiting = client.post("/login", data=fields, headers=PAGE)
    assert waiting.headers["retry-after"] == "1"
    assert "Too many tries. Wait 1 second and try again." in waiting.text

    # The right password waits too, or the flood would know it from its answer; other accounts do not wait.
    assert log_in(visit(client.app), "ben") == 303
    clock.now += 1
    assert log_in(client, "anna", "wrong password!") == 401
    clock.now += 1
    assert log_in(client, "anna") == 429
    clock.now += 1
    assert log_in(client, "anna") == 303


def test_name_in_other_letters_is_no_way_round(tmp_path: Path) -> None:
    client = visit(make_app(tmp_path, accounts=make_accounts(tmp_path, "anna")))
    names = ("anna", "Anna", "ANNA", "aNNa", "annA", "anNa")
    tries = [log_in(client, name, "wrong password!") for name in names]
    assert tries == [401] * 5 + [429]


def test_flood_over_many_names_from_one_address_waits(tmp_path: Path) -> None:
    client = visit(make_app(tmp_path, accounts=make_accounts(tmp_path, "anna")))
    tries = [log_in(client, f"user{number}", "wrong password!") for number in range(22)]
    assert tries == [401] * 20 + [429] * 2


def test_right_passwords_of_a_whole_ward_never_wait(tmp_path: Path) -> None:
    app = make_app(tmp_path, accounts=make_accounts(tmp_path, "anna"))
    assert [log_in(visit(app), "anna") for _ in range(25)] == [303] * 25


def test_logging_out_ends_the_session(tmp_path: Path) -> None:
    client = visit(make_app(tmp_path, accounts=make_accounts(tmp_path, "anna")))
    log_in(client, "anna")
    kept = dict(client.cookies)
    token = client.get("/").json()["csrf"]
    answer = client.post("/logout", data={"csrf": token})

    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert not client.cookies
    client.cookies.update(kept)
    assert client.get("/").status_code == 401
    assert audited(tmp_path)[-1] == ("anna", "log out")


def test_nobody_logs_in_where_there_are_no_accounts(tmp_path: Path) -> None:
    client = visit(make_app(tmp_path))
    page = client.get("/login", headers=PAGE)
    assert (page.status_code, page.headers["location"]) == (303, "/")
    token = client.get("/").json()["csrf"]
    for path in ("/login", "/logout"):
        answer = client.post(path, data={"csrf": token, "name": "anna", "password": PASSWORD})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert client.get("/").json()["reviewer"] == "Dr Test"
    assert not (tmp_path / "audit.jsonl").read_text()
