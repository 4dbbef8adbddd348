"""What the case page says, in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedlens.decision.advice import Advice, refuse
from fedlens.predicting import Prediction
from fedlens.viewer.case import Case, Review, Row
from fedlens.viewer.case_view import bars, chance_text, headline, line, short_time, verdict_text
from fedlens.viewer.uploads import title_of

CHANCES = (("a", 0.2), ("b", 0.7), ("c", 0.1))


def judged(kind: str, *reasons: str) -> Prediction:
    return Prediction("x", CHANCES, ("b", "a"), Advice(kind, reasons))  # type: ignore[arg-type]


def test_a_report_names_class_and_chance() -> None:
    said = headline(judged("report", "b with probability 70%"))
    assert (said.kind, said.title, said.chance, said.reasons) == ("report", "Report: b", "70 %", ())


def test_a_referral_gives_its_reasons_as_sentences() -> None:
    said = headline(judged("refer", "2 classes are possible (b, a)", "the image is unlike others"))
    assert said.title == "Refer to a specialist"
    assert said.reasons == ("2 classes are possible (b, a).", "The image is unlike others.")


def test_refused_unreadable_and_waiting_are_told_apart() -> None:
    kinds = [
        headline(Prediction("x", advice=refuse("this is a film"))),
        headline(Prediction("x", problem="truncated")),
        headline(None),
    ]
    assert [said.kind for said in kinds] == ["refused", "unreadable", "waiting"]
    assert [said.reasons for said in kinds] == [("This is a film.",), ("Truncated.",), ()]


def test_bars_are_ranked_and_know_what_is_possible() -> None:
    assert [(bar.label, bar.possible) for bar in bars(judged("refer"))] == [
        ("b", True),
        ("a", True),
        ("c", False),
    ]
    assert bars(None) == () and bars(Prediction("x", problem="torn")) == ()


def test_a_line_names_the_likeliest_class_and_the_other_possible_ones() -> None:
    case = Case("id", "title", "study", Path("x"), prediction=judged("refer", "why"))
    shown = line(Row(case, None))
    assert shown.likeliest and shown.likeliest.label == "b" and shown.others == ("a",)


@pytest.mark.parametrize(
    ("chance", "text"),
    [
        (1.0, "> 99 %"),
        (0.9951, "> 99 %"),
        (0.99, "99 %"),
        (0.5, "50 %"),
        (0.01, "1 %"),
        (0.004, "< 1 %"),
        (0.0, "< 1 %"),
    ],
)
def test_no_chance_is_a_promise(chance: float, text: str) -> None:
    assert chance_text(chance) == text


def test_reviews_and_times_in_words() -> None:
    review = Review("id", "ann", "disagree", "c", "", "2026-03-01T09:30:00+00:00")
    assert verdict_text(review) == "Disagrees: c" and short_time(review.time) == "2026-03-01 09:30 UTC"


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\scans\\a.dcm", "a.dcm"),
        ("", "unnamed"),
        ("a\x00b\u202egnp.exe", "abgnp.exe"),
        ("x" * 500, "x" * 120),
    ],
)
def test_titles_are_names_without_folders_and_unseen_letters(name: str, title: str) -> None:
    assert title_of(name) == title
