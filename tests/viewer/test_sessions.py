"""Sessions: tokens that are known, and when they end."""

from __future__ import annotations

from tests.viewer.guarded import Clock

from fedlens.viewer.sessions import LONGEST, Sessions


def test_token_finds_its_session_and_no_other() -> None:
    sessions = Sessions(60)
    (one, first), (two, second) = sessions.open("anna", "mark"), sessions.open("ben")

    assert sessions.find(one) == first
    assert sessions.find(two) == second
    assert (first.reviewer, first.mark) == ("anna", "mark")
    assert len({one, two, first.csrf, second.csrf}) == 4
    assert len(one) >= 43
    for forged in ("", one[:-1], one + "A", first.key, first.csrf, "é"):
        assert sessions.find(forged) is None


def test_session_keeps_no_token() -> None:
    token, session = Sessions(60).open("anna")
    assert token not in repr(session)


def test_idle_session_ends_and_used_one_goes_on() -> None:
    clock = Clock()
    sessions = Sessions(60, clock=clock)
    token, session = sessions.open("anna")
    for _ in range(5):
        clock.now += 59
        assert sessions.find(token) == session
    clock.now += 61

    assert sessions.find(token) is None
    clock.now -= 61
    assert sessions.find(token) is None


def test_question_that_a_page_asks_by_itself_is_no_use() -> None:
    clock = Clock()
    sessions = Sessions(60, clock=clock)
    token, session = sessions.open("anna")
    clock.now += 59
    assert sessions.find(token, use=False) == session
    clock.now += 2
    assert sessions.find(token, use=False) is None


def test_session_ends_after_a_working_day_however_much_it_is_used() -> None:
    clock = Clock()
    sessions = Sessions(LONGEST, clock=clock)
    token, _ = sessions.open("anna")
    clock.now += LONGEST
    assert sessions.find(token) is not None
    clock.now += 1
    assert sessions.find(token) is None


def test_closed_session_stays_closed() -> None:
    sessions = Sessions(60)
    token, session = sessions.open("anna")
    sessions.close(session)
    sessions.close(session)
    assert sessions.find(token) is None


def test_crowd_ends_the_session_that_was_unused_for_longest() -> None:
    sessions = Sessions(60, most=3)
    tokens = [sessions.open(str(number))[0] for number in range(3)]
    assert sessions.find(tokens[0]) is not None
    tokens.append(sessions.open("late")[0])

    assert [sessions.find(token) is not None for token in tokens] == [True, False, True, True]
