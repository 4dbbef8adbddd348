"""Cases, predictions and reviews in one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedlens.errors import HistoryError
from fedlens.predicting import Prediction
from fedlens.viewer.case import Case, CasePage, CaseQuery, Review, Row
from fedlens.viewer.review_table import review_table
from fedlens.viewer.store_file import StoreFile
from fedlens.viewer.store_rows import (
    CASE_COLUMNS,
    LISTED,
    REVIEW_COLUMNS,
    Listing,
    case_row,
    judged_row,
    read_case,
    read_review,
    state_of,
    storable,
)

STORE_NAME = "viewer.sqlite"

_CONFIRMED = (
    "CASE WHEN cases.label <> '' THEN cases.label "
    "WHEN reviews.verdict = 'agree' AND reviews.label = '' THEN reviews.likeliest "
    "ELSE coalesce(reviews.label, '') END"
)


@dataclass(frozen=True)
class Confirmed:
    """A case whose class is known.

    Attributes:
        case_id: Of the case.
        sha256: Digest of its file's bytes.
        frame: Of a multi-frame DICOM file.
        patient: From a DICOM header; empty where there is none.
        label: From the study; where it knows none, from the latest review.
    """

    case_id: str
    sha256: str
    frame: int
    patient: str
    label: str


class CaseStore:
    """All cases of one viewer; any thread may call it, one process at a time may have it open.

    Attributes:
        path: The SQLite file.

    Args:
        path: The same; made, with its folder, where it is missing. Nobody else may read it.

    Raises:
        HistoryError: As :class:`fedlens.viewer.store_file.StoreFile`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = StoreFile(path)

    def close(self) -> None:
        """Let go of the file; nothing may be called afterwards."""
        self._file.close()

    def add(self, cases: Iterable[Case]) -> tuple[str, ...]:
        """Take cases in, all or none.

        The same content (or file, where it has no digest), frame and origin again makes no new case.

        Returns:
            The id that each case has from now on: its own, or that of the same case from before, whose
            file an upload keeps.
        """
        with self._file.write() as connection:
            return _insert(connection, cases)

    def replace(self, cases: Iterable[Case]) -> tuple[str, ...]:
        """As :meth:`add`, in place of all study, reference and folder cases that were there before.

        Those that do not come again are not found any more; their judgements and reviews are kept for when
        they do.
        """
        with self._file.write() as connection:
            connection.execute("UPDATE cases SET present = 0 WHERE origin <> 'upload'")
            return _insert(connection, cases)

    def bind(self, network: str) -> None:
        """Forget what another network said, and which files could not be read at the time.

        Args:
            network: What stands for weights and advice.
        """
        with self._file.write() as connection:
            kept = connection.execute("SELECT value FROM facts WHERE name = 'network'").fetchone()
            which = "prediction IS NOT NULL" if kept != (network,) else "state = 'unreadable'"
            connection.execute(
                "UPDATE cases SET prediction = NULL, state = 'waiting', rank = 4, chance = 0, "
                f"likeliest = '', likeliest_words = '' WHERE {which}"
            )
            connection.execute("INSERT OR REPLACE INTO facts VALUES ('network', ?)", (network,))

    def case(self, case_id: str) -> Case | None:
        """One case; None for any text that is no known id."""
        found = self._file.read(
            f"SELECT {CASE_COLUMNS} FROM cases WHERE case_id = ? AND present = 1", (storable(case_id),)
        )
        return read_case(found[0]) if found else None

    def page(self, query: CaseQuery, per_page: int) -> CasePage:
        """One page of a list; never holds a reference case."""
        listing = Listing.of(query)
        ((total,),) = self._file.read(f"SELECT count(*) FROM cases WHERE {listing.where}", listing.values)
        pages = max(1, -(-total // per_page))
        page = min(max(1, query.page), pages)
        rows = self._file.read(
            f"SELECT {CASE_COLUMNS}, {REVIEW_COLUMNS} FROM cases "
            "LEFT JOIN reviews ON reviews.number = cases.last_review "
            f"WHERE {listing.where} ORDER BY {listing.order()} LIMIT ? OFFSET ?",
            (*listing.values, per_page, (page - 1) * per_page),
        )
        width = CASE_COLUMNS.count(",") + 1
        found = tuple(Row(read_case(row[:width]), read_review(row[width:])) for row in rows)
        ((waiting,),) = self._file.read(f"SELECT count(*) FROM cases WHERE {LISTED} AND rank = 4")
        return CasePage(found, total, page, pages, waiting)

    def around(self, case_id: str, query: CaseQuery) -> tuple[str, str]:
        """Ids of the cases before and after one in a list; empty where there are none.

        A case that the list leaves out has the neighbours that it would have in it; one that no list holds
        has none.
        """
        listing = Listing.of(query)
        names = ", ".join(listing.keys)
        keys = self._file.read(
            f"SELECT {names} FROM cases WHERE {LISTED} AND case_id = ?", (storable(case_id),)
        )
        found = [""] * 2
        for place, backwards in enumerate((True, False) if keys else ()):
            rows = self._file.read(
                f"SELECT case_id FROM cases WHERE {listing.where} AND {listing.beside(backwards=backwards)} "
                f"ORDER BY {listing.order(backwards=backwards)} LIMIT 1",
                (*listing.values, *keys[0]),
            )
            found[place] = rows[0][0] if rows else ""
        return found[0], found[1]

    def labels(self) -> tuple[str, ...]:
        """Likeliest classes that occur in lists, sorted."""
        rows = self._file.read(
            f"SELECT DISTINCT likeliest FROM cases WHERE {LISTED} AND likeliest <> '' ORDER BY likeliest"
        )
        return tuple(label for (label,) in rows)

    def judged(self, case_id: str, prediction: Prediction) -> None:
        """Keep what the network says of a case."""
        self.judge_all({case_id: prediction})

    def judge_all(self, predictions: Mapping[str, Prediction]) -> None:
        """Keep what the network says of some cases, by id."""
        with self._file.write() as connection:
            for case_id, prediction in predictions.items():
                row = judged_row(prediction)
                connection.execute(
                    f"UPDATE cases SET {', '.join(f'{name} = :{name}' for name in row)} "
                    "WHERE case_id = :case_id",
                    {**row, "case_id": case_id},
                )

    def waiting(self, count: int) -> tuple[Case, ...]:
        """Cases that the network has not judged yet, uploads first, at most ``count``."""
        rows = self._file.read(
            f"SELECT {CASE_COLUMNS} FROM cases WHERE {LISTED} AND rank = 4 "
            "ORDER BY origin <> 'upload', seq LIMIT ?",
            (count,),
        )
        return tuple(map(read_case, rows))

    def review(self, review: Review) -> None:
        """Keep a review, and beside it what the network said at the time.

        Raises:
            HistoryError: There is no such case, or the disk is full.
        """
        case = self.case(review.case_id)
        if case is None:
            raise HistoryError("The case that was reviewed is not there any more.")
        likeliest = (case.prediction.likeliest if case.prediction else None) or ("", None)
        given = (review.reviewer, review.verdict, review.label, review.note, review.time)
        with self._file.write() as connection:
            cursor = connection.execute(
                "INSERT INTO reviews (case_id, reviewer, verdict, label, note, time, "
                "likeliest, chance, advice) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (review.case_id, *map(storable, given), *likeliest, state_of(case.prediction)),
            )
            connection.execute(
                "UPDATE cases SET last_review = ? WHERE case_id = ?", (cursor.lastrowid, review.case_id)
            )

    def reviews(self, case_id: str) -> tuple[Review, ...]:
        """All reviews of a case, newest first."""
        rows = self._file.read(
            f"SELECT {REVIEW_COLUMNS} FROM reviews WHERE case_id = ? ORDER BY number DESC",
            (storable(case_id),),
        )
        return tuple(Review(*row) for row in rows)

    def reviews_csv(self) -> str:
        """All reviews as a table, oldest first; those of hospitals that are not shown now are left out."""
        return review_table(
            self._file.read(
                "SELECT cases.case_id, cases.title, cases.patient, reviews.likeliest, reviews.chance, "
                "reviews.advice, reviews.label, reviews.reviewer, reviews.verdict, reviews.note, "
                "reviews.time FROM reviews JOIN cases ON cases.case_id = reviews.case_id "
                "WHERE cases.present = 1 OR cases.hospital = '' ORDER BY reviews.number"
            )
        )

    def confirmed(self) -> tuple[Confirmed, ...]:
        """Cases whose class is known from the study, or from a reviewer who agrees or names another one."""
        rows = self._file.read(
            f"SELECT cases.case_id, cases.sha256, cases.frame, cases.patient, {_CONFIRMED} AS known "
            "FROM cases LEFT JOIN reviews ON reviews.number = cases.last_review "
            "WHERE cases.present = 1 AND cases.sha256 <> '' AND known <> '' ORDER BY cases.seq"
        )
        return tuple(Confirmed(*row) for row in rows)


def _insert(connection: sqlite3.Connection, cases: Iterable[Case]) -> tuple[str, ...]:
    ids = []
    for case in cases:
        row = case_row(case)
        changing = ("title", "file", "patient", "label", "hospital", "title_key", "words")
        news = ", ".join(f"{name} = iif(origin = 'upload', {name}, excluded.{name})" for name in changing)
        ((case_id,),) = connection.execute(
            f"INSERT INTO cases ({', '.join(row)}) VALUES ({', '.join(f':{name}' for name in row)}) "
            f"ON CONFLICT (content, frame, origin) DO UPDATE SET present = 1, {news} RETURNING case_id",
            row,
        ).fetchall()
        if case.prediction is not None:
            judged = judged_row(case.prediction)
            connection.execute(
                f"UPDATE cases SET {', '.join(f'{name} = :{name}' for name in judged)} "
                "WHERE case_id = :case_id",
                {**judged, "case_id": case_id},
            )
        ids.append(case_id)
    return tuple(ids)
