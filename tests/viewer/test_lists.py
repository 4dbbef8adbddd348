"""Which list an address means, and which address a list has."""

from __future__ import annotations

import pytest

from fedlens.viewer.case import CaseQuery
from fedlens.viewer.lists import CaseList, Searches

FULL = {
    "advice": "refer",
    "label": "a & b",
    "origin": "upload",
    "reviewed": "no",
    "order": "title",
    "page": "3",
}


def test_an_address_and_back_again() -> None:
    searches = Searches()
    token = searches.keep("ann", " Jane Doe ")
    found = CaseList.asked({**FULL, "search": token, "page": "3"}, searches, "ann")
    assert found.query == CaseQuery("Jane Doe", "refer", "a & b", "upload", "no", "title", 3)
    address = found.parameters()
    assert "Jane" not in address and f"search={token}" in address and "label=a+%26+b" in address
    assert found.parameters(1).endswith("order=title") and found.parameters(9).endswith("page=9")
    assert CaseList(CaseQuery()).parameters() == ""


def test_words_are_their_reviewer_s_own() -> None:
    searches = Searches()
    token = searches.keep("ann", "Jane Doe")
    stranger = CaseList.asked({"search": token}, searches, "bob")
    assert stranger.query.text == "" and stranger.token == "" and not stranger.filtered


def test_old_searches_are_forgotten_and_long_ones_cut() -> None:
    searches = Searches()
    first = searches.keep("ann", "first")
    tokens = [searches.keep("ann", "x" * 1000) for _ in range(1000)]
    assert searches.text("ann", first) == "" and len(searches.text("ann", tokens[-1])) == 200
    assert len(set(tokens)) == 1000


@pytest.mark.parametrize(
    "given",
    [
        {"advice": "burn"},
        {"origin": "reference"},
        {"reviewed": "maybe"},
        {"order": "random"},
        {"page": "-2"},
        {"page": "\u00b2"},
        {"page": "1e3"},
        {"page": "9" * 30},
    ],
)
def test_what_it_cannot_mean_is_left_out(given: dict[str, str]) -> None:
    assert CaseList.asked(given, Searches(), "ann").query == CaseQuery()
