"""The viewer's tables: how cases become rows, and lists become queries."""

from __future__ import annotations

import json
import re
import sqlite3
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlens.decision.advice import Advice
from fedlens.predicting import Prediction
from fedlens.viewer.case import Case, CaseQuery, Order, Review

VERSION = 1

LISTED = "cases.present = 1 AND cases.origin <> 'reference'"
"""Which cases lists may hold; in these words, or SQLite does not take the indexes over them."""

# ``present`` is 0 for a case of an earlier opening that this one was not given. ``state``, ``rank``,
# ``chance`` and ``likeliest`` repeat what the prediction says, for indexes.
SCHEMA = f"""
CREATE TABLE cases (
    seq INTEGER PRIMARY KEY,
    case_id TEXT NOT NULL UNIQUE,
    content TEXT NOT NULL,
    frame INTEGER NOT NULL,
    origin TEXT NOT NULL,
    title TEXT NOT NULL,
    file TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    patient TEXT NOT NULL,
    label TEXT NOT NULL,
    hospital TEXT NOT NULL,
    added TEXT NOT NULL,
    present INTEGER NOT NULL DEFAULT 1,
    title_key TEXT NOT NULL,
    words TEXT NOT NULL,
    prediction TEXT,
    state TEXT NOT NULL DEFAULT 'waiting',
    rank INTEGER NOT NULL DEFAULT 4,
    chance REAL NOT NULL DEFAULT 0,
    likeliest TEXT NOT NULL DEFAULT '',
    likeliest_words TEXT NOT NULL DEFAULT '',
    last_review INTEGER,
    UNIQUE (content, frame, origin)
);
CREATE INDEX by_uncertainty ON cases (rank, chance, seq) WHERE {LISTED.replace("cases.", "")};
CREATE INDEX by_time ON cases (added, seq) WHERE {LISTED.replace("cases.", "")};
CREATE INDEX by_title ON cases (title_key, seq) WHERE {LISTED.replace("cases.", "")};
CREATE INDEX by_likeliest ON cases (likeliest) WHERE {LISTED.replace("cases.", "")};
CREATE TABLE reviews (
    number INTEGER PRIMARY KEY,
    case_id TEXT NOT NULL REFERENCES cases (case_id),
    reviewer TEXT NOT NULL,
    verdict TEXT NOT NULL,
    label TEXT NOT NULL,
    note TEXT NOT NULL,
    time TEXT NOT NULL,
    likeliest TEXT NOT NULL,
    chance REAL,
    advice TEXT NOT NULL
);
CREATE INDEX by_case ON reviews (case_id, number);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
PRAGMA user_version = {VERSION};
"""

CASE_COLUMNS = (
    "cases.case_id, cases.title, cases.origin, cases.file, cases.frame, cases.sha256, cases.patient, "
    "cases.label, cases.hospital, cases.added, cases.prediction"
)
REVIEW_COLUMNS = (
    "reviews.case_id, reviews.reviewer, reviews.verdict, reviews.label, reviews.note, reviews.time"
)

_RANKS: Mapping[str, int] = {"refer": 0, "refused": 1, "unreadable": 2, "report": 3, "waiting": 4}
_KEYS: Mapping[Order, tuple[str, ...]] = {
    "uncertain": ("rank", "chance", "seq"),
    "newest": ("added", "seq"),
    "title": ("title_key", "seq"),
}
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Listing:
    """A query over cases.

    Attributes:
        where: Condition in SQL.
        values: Of its question marks.
        keys: Columns that order the list, all in the same direction.
        falling: Whether the greatest comes first.
    """

    where: str
    values: tuple[object, ...]
    keys: tuple[str, ...]
    falling: bool

    @classmethod
    def of(cls, query: CaseQuery) -> Listing:
        """The list that a query asks for."""
        conditions, values = [LISTED], []
        for word in folded(query.text).split():
            conditions.append("instr(cases.words || char(10) || cases.likeliest_words, ?) > 0")
            values.append(word)
        for column, wanted in (("state", query.advice), ("likeliest", query.label), ("origin", query.origin)):
            if wanted:
                conditions.append(f"cases.{column} = ?")
                values.append(storable(wanted))
        if query.reviewed:
            conditions.append(f"cases.last_review IS {'NOT ' if query.reviewed == 'yes' else ''}NULL")
        return cls(" AND ".join(conditions), tuple(values), _KEYS[query.order], query.order == "newest")

    def order(self, *, backwards: bool = False) -> str:
        """What follows ORDER BY."""
        direction = " DESC" if self.falling != backwards else ""
        return ", ".join(f"cases.{key}{direction}" for key in self.keys)

    def beside(self, *, backwards: bool) -> str:
        """Condition on cases that come after one, or before it; its keys are the question marks' values."""
        names = ", ".join(f"cases.{key}" for key in self.keys)
        sign = "<" if self.falling != backwards else ">"
        return f"({names}) {sign} ({', '.join('?' * len(self.keys))})"


def folded(text: str) -> str:
    """Text as it is searched: capitals and ways of writing the same letter make no difference."""
    return unicodedata.normalize("NFKC", storable(text)).casefold()


def storable(text: str) -> str:
    """Text that SQLite takes: halves of characters, as torn file names have them, become question marks."""
    return text.encode(errors="replace").decode()


def case_row(case: Case) -> dict[str, object]:
    """Columns of a new case, but for its prediction's."""
    # Where the bytes could not be read, the place stands for them.
    return {
        "case_id": case.case_id,
        "content": case.sha256 or storable(str(case.file)),
        "frame": case.frame,
        "origin": case.origin,
        "title": storable(case.title),
        "file": storable(str(case.file)),
        "sha256": case.sha256,
        "patient": storable(case.patient),
        "label": case.label,
        "hospital": case.hospital,
        "added": case.added,
        # Slice 9 before slice 10.
        "title_key": _NUMBER.sub(lambda number: number[0].zfill(12), folded(case.title)),
        "words": folded("\n".join((case.title, case.patient, case.label))),
    }


def judged_row(prediction: Prediction) -> dict[str, object]:
    """Columns that say what the network says."""
    likeliest = prediction.likeliest
    state = state_of(prediction)
    return {
        "prediction": json.dumps(prediction.description(), allow_nan=False),
        "state": state,
        "rank": _RANKS[state],
        "chance": likeliest[1] if likeliest else 0.0,
        "likeliest": likeliest[0] if likeliest else "",
        "likeliest_words": folded(likeliest[0]) if likeliest else "",
    }


def state_of(prediction: Prediction | None) -> str:
    """``report``, ``refer``, ``refused``, ``unreadable`` or ``waiting``."""
    if prediction is None:
        return "waiting"
    return prediction.advice.kind if prediction.advice and not prediction.problem else "unreadable"


def read_case(row: sqlite3.Row | tuple[Any, ...]) -> Case:
    """From ``CASE_COLUMNS``."""
    case_id, title, origin, file, frame, sha256, patient, label, hospital, added, prediction = row
    return Case(
        case_id=case_id,
        title=title,
        origin=origin,
        file=Path(file),
        frame=frame,
        sha256=sha256,
        patient=patient,
        label=label,
        hospital=hospital,
        added=added,
        prediction=_read_prediction(prediction) if prediction else None,
    )


def read_review(row: tuple[Any, ...]) -> Review | None:
    """From ``REVIEW_COLUMNS``; None where they are empty."""
    return None if row[0] is None else Review(*row)


def _read_prediction(text: str) -> Prediction:
    content = json.loads(text)
    advice = Advice(content["advice"], tuple(content["reasons"])) if content["advice"] else None
    return Prediction(
        file=content["file"],
        probabilities=tuple(content["probabilities"].items()),
        label_set=tuple(content["set"]),
        advice=advice,
        modality=content["modality"],
        distance=content["distance"],
        problem=content["problem"] or "",
        map=content["map"] or "",
    )
