"""Which list a visitor looks at: filters in the address, the words searched for beside it."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args
from urllib.parse import urlencode

from fedlens.viewer.case import CaseQuery, Order

LONGEST_TEXT = 200
"""Characters of a search that are looked at."""

_MOST_SEARCHES = 1000

ADVICE: dict[str, str] = {
    "report": "Report",
    "refer": "Refer",
    "refused": "Not judged",
    "unreadable": "Cannot be read",
    "waiting": "Waiting",
}
ORIGINS: dict[str, str] = {"study": "Study", "folder": "Folder", "upload": "Dropped in"}
REVIEWED: dict[str, str] = {"no": "Not reviewed", "yes": "Reviewed"}
ORDERS: Mapping[Order, str] = {"uncertain": "Uncertain first", "newest": "Newest first", "title": "By name"}


class Searches:
    """Words that people search for, each under a random token.

    They may be a patient's name, so they never stand in an address, where logs and histories would keep
    them: the address holds the token. Kept in memory only, and forgotten when many more have come.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts: OrderedDict[tuple[str, str], str] = OrderedDict()

    def keep(self, reviewer: str, text: str) -> str:
        """The token of a search; empty for an empty one."""
        text = text.strip()[:LONGEST_TEXT]
        if not text:
            return ""
        token = secrets.token_urlsafe(16)
        with self._lock:
            self._texts[reviewer, token] = text
            if len(self._texts) > _MOST_SEARCHES:
                self._texts.popitem(last=False)
        return token

    def text(self, reviewer: str, token: str) -> str:
        """What this reviewer searched for; empty where the token is not theirs, or forgotten."""
        with self._lock:
            return self._texts.get((reviewer, token), "")


@dataclass(frozen=True)
class CaseList:
    """One list of cases, and how addresses name it.

    Attributes:
        query: What it shows.
        token: Of its search; empty without one.
    """

    query: CaseQuery
    token: str = ""

    @classmethod
    def asked(cls, given: Mapping[str, str], searches: Searches, reviewer: str) -> CaseList:
        """The list that an address or a form names; what it cannot mean is left out."""
        token = given.get("search", "")
        text = searches.text(reviewer, token)
        page = given.get("page", "")
        query = CaseQuery(
            text=text,
            advice=_one_of(ADVICE, given.get("advice", "")),
            label=given.get("label", "")[:LONGEST_TEXT],
            origin=_one_of(ORIGINS, given.get("origin", "")),
            reviewed=_one_of(REVIEWED, given.get("reviewed", "")),
            order=_order(given.get("order", "")),
            page=max(1, int(page)) if page.isascii() and page.isdecimal() and len(page) < 8 else 1,
        )
        return cls(query, token if text else "")

    def parameters(self, page: int | None = None) -> str:
        """The address's query string, ``?`` included; empty for the plain list's first page.

        Args:
            page: Another page than the query's own.
        """
        query = self.query
        named = {
            "search": self.token,
            "advice": query.advice,
            "label": query.label,
            "origin": query.origin,
            "reviewed": query.reviewed,
            "order": "" if query.order == "uncertain" else query.order,
            "page": {1: ""}.get(page or query.page, str(page or query.page)),
        }
        text = urlencode({name: value for name, value in named.items() if value})
        return f"?{text}" if text else ""

    @property
    def filtered(self) -> bool:
        """Whether some cases are left out."""
        query = self.query
        return any((query.text, query.advice, query.label, query.origin, query.reviewed))


def _one_of(known: Mapping[str, str], value: str) -> str:
    return value if value in known else ""


def _order(value: str) -> Order:
    known: dict[str, Order] = {name: name for name in get_args(Order)}
    return known.get(value, "uncertain")
