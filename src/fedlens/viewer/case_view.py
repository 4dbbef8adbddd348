"""What the case page says, in words and bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedlens.predicting import Prediction
from fedlens.viewer.case import Case, Review, Row


@dataclass(frozen=True)
class Headline:
    """The advice, to be read at a glance.

    Attributes:
        kind: ``report``, ``refer``, ``refused``, ``unreadable`` or ``waiting``.
        tag: The kind in a word or two.
        title: What to do, in words.
        chance: Probability of the class to report, as :func:`chance_text`; empty where there is none.
        reasons: One sentence each.
    """

    kind: str
    tag: str
    title: str
    chance: str = ""
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bar:
    """One class.

    Attributes:
        label: Its name.
        chance: Its probability.
        text: The same, as :func:`chance_text`.
        possible: Whether it is in the prediction set.
    """

    label: str
    chance: float
    text: str
    possible: bool


@dataclass(frozen=True)
class Line:
    """One line of a list.

    Attributes:
        case: It is about.
        review: The latest one.
        said: The advice.
        likeliest: The likeliest class; None where there is none.
        others: Further possible classes.
    """

    case: Case
    review: Review | None
    said: Headline
    likeliest: Bar | None
    others: tuple[str, ...]


def line(row: Row) -> Line:
    """A list's row, ready to be shown."""
    prediction = row.case.prediction
    ranked = bars(prediction)
    likeliest = ranked[0] if ranked else None
    others = tuple(bar.label for bar in ranked[1:] if bar.possible)
    return Line(row.case, row.review, headline(prediction), likeliest, others)


def headline(prediction: Prediction | None) -> Headline:
    """The advice on one case."""
    if prediction is None:
        return Headline("waiting", "Waiting", "Not judged yet")
    if prediction.problem:
        return Headline(
            "unreadable",
            "Cannot be read",
            "The image cannot be read",
            reasons=_sentences([prediction.problem]),
        )
    advice, likeliest = prediction.advice, prediction.likeliest
    if advice is None or advice.kind == "refused" or likeliest is None:
        reasons = _sentences(advice.reasons if advice else ())
        return Headline("refused", "Not judged", "Not judged: refer to a specialist", reasons=reasons)
    if advice.kind == "report":
        return Headline("report", "Report", f"Report: {likeliest[0]}", chance_text(likeliest[1]))
    return Headline("refer", "Refer", "Refer to a specialist", reasons=_sentences(advice.reasons))


def bars(prediction: Prediction | None) -> tuple[Bar, ...]:
    """All classes, the likeliest first."""
    if prediction is None:
        return ()
    ranked = sorted(prediction.probabilities, key=lambda pair: -pair[1])
    return tuple(
        Bar(label, chance, chance_text(chance), label in prediction.label_set) for label, chance in ranked
    )


def chance_text(chance: float) -> str:
    """A probability in per cent as people say it; never 0 or 100, which nothing measured can promise."""
    if chance > 0.99:
        return "> 99 %"
    return f"{chance:.0%}".replace("%", " %") if chance >= 0.01 else "< 1 %"


def short_time(time: str) -> str:
    """``2026-03-01T09:30:00+00:00`` as ``2026-03-01 09:30 UTC``."""
    return f"{time[:10]} {time[11:16]} UTC" if len(time) >= 16 else time


def verdict_text(review: Review) -> str:
    """What a review says, in a few words."""
    if review.verdict == "agree":
        return f"Agrees: {review.label}" if review.label else "Agrees"
    return f"Disagrees: {review.label}" if review.label else "Disagrees"


def _sentences(clauses: Sequence[str]) -> tuple[str, ...]:
    return tuple(clause[:1].upper() + clause[1:].rstrip(".") + "." for clause in clauses if clause)
