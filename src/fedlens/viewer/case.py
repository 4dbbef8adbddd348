"""One image in the viewer, what is said of it, and what people said of that."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedlens.predicting import Prediction

Origin = Literal["study", "reference", "folder", "upload"]
Verdict = Literal["agree", "disagree"]
Order = Literal["uncertain", "newest", "title"]


def new_case_id() -> str:
    """32 random hexadecimal digits, for addresses: they say nothing of patient, file or image.

    Hexadecimal, since a first character such as ``-`` would be defused in a table of reviews.
    """
    return secrets.token_hex(16)


@dataclass(frozen=True)
class Case:
    """One image.

    Attributes:
        case_id: As :func:`new_case_id`.
        title: What lists call it: the file's name without its folder. May hold a patient's name: for the
            page, never for an address or a log.
        origin: ``study``, a test image of the study; ``reference``, another confirmed image of it, left out
            of lists and found as a neighbour; ``folder``, from a path given to the command; ``upload``.
        file: Where its bytes are.
        frame: Of a multi-frame DICOM file; 0 otherwise.
        sha256: Digest of its bytes.
        patient: Patient's name and number from a DICOM header; empty where there are none.
        label: Class that is known from the study; empty where it is not.
        hospital: Of the study; empty where it is not known.
        added: Time in UTC, ISO 8601 to the second.
        prediction: What the network says; None while it waits its turn.
    """

    case_id: str
    title: str
    origin: Origin
    file: Path
    frame: int = 0
    sha256: str = ""
    patient: str = ""
    label: str = ""
    hospital: str = ""
    added: str = ""
    prediction: Prediction | None = None


@dataclass(frozen=True)
class Review:
    """What a reviewer said of one case; never changed afterwards, a later one stands beside it.

    Attributes:
        case_id: Of the case.
        reviewer: Account, or the viewer's ``reviewer``.
        verdict: On the likeliest class.
        label: The reviewer's class where they disagree; the likeliest class where they agree; may be empty.
        note: In their words.
        time: UTC, ISO 8601 to the second.
    """

    case_id: str
    reviewer: str
    verdict: Verdict
    label: str
    note: str
    time: str


@dataclass(frozen=True)
class CaseQuery:
    """Which cases a list shows; empty fields do not filter.

    Attributes:
        text: Words that title, patient, known or likeliest class must hold, in any case of letters.
        advice: ``report``, ``refer``, ``refused``, ``unreadable`` or ``waiting``.
        label: Likeliest class.
        origin: ``study``, ``folder`` or ``upload``.
        reviewed: ``yes`` or ``no``.
        order: ``uncertain`` puts referred and improbable ones first.
        page: From 1.
    """

    text: str = ""
    advice: str = ""
    label: str = ""
    origin: str = ""
    reviewed: str = ""
    order: Order = "uncertain"
    page: int = 1


@dataclass(frozen=True)
class Row:
    """One line of a list: a case and its latest review."""

    case: Case
    review: Review | None


@dataclass(frozen=True)
class CasePage:
    """One page of a list.

    Attributes:
        rows: In order.
        total: Cases that the query finds.
        page: From 1; the last page where a later one was asked for.
        pages: At least 1.
        waiting: Cases altogether that the network has not judged yet.
    """

    rows: tuple[Row, ...]
    total: int
    page: int
    pages: int
    waiting: int
