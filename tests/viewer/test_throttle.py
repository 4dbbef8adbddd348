"""Waiting times after failures, and how many requests may come."""

from __future__ import annotations

from tests.viewer.guarded import Clock

from fedlens.viewer.throttle import Allowance, Backoff

KEYS = {"both": 3, "address": 5}


def test_failures_cost_nothing_at_first_and_then_ever_more() -> None:
    clock = Clock()
    backoff = Backoff(clock)
    assert [backoff.attempt(KEYS) for _ in range(3)] == [0, 0, 0]
    waits = []
    for _ in range(12):
        wait = backoff.attempt({"both": 3})
        waits.append(wait)
        clock.now += wait
        assert backoff.attempt({"both": 3}) == 0
    assert waits[:4] == [1, 2, 4, 8]
    assert max(waits) <= 900


def test_refused_try_is_not_counted() -> None:
    clock = Clock()
    backoff = Backoff(clock)
    for _ in range(3):
        backoff.attempt({"both": 3})
    assert [backoff.attempt({"both": 3}) for _ in range(5)] == [1] * 5


def test_other_keys_wait_for_nobody() -> None:
    backoff = Backoff(Clock())
    for _ in range(9):
        backoff.attempt({"anna": 3})
    assert backoff.attempt({"ben": 3}) == 0


def test_one_key_of_several_is_enough_to_wait() -> None:
    backoff = Backoff(Clock())
    for number in range(5):
        assert backoff.attempt({f"both {number}": 3, "address": 5}) == 0
    assert backoff.attempt({"both 9": 3, "address": 5}) > 0


def test_success_forgets_its_own_failures_and_counts_for_no_other() -> None:
    backoff = Backoff(Clock())
    for _ in range(20):
        assert backoff.attempt(KEYS) == 0
        backoff.succeeded(KEYS, anew="both")
    backoff.attempt(KEYS)
    backoff.attempt(KEYS)
    backoff.attempt(KEYS)
    assert backoff.attempt(KEYS) > 0


def test_failures_are_forgotten_after_an_hour() -> None:
    clock = Clock()
    backoff = Backoff(clock)
    for _ in range(3):
        backoff.attempt(KEYS)
    clock.now += 3601
    assert [backoff.attempt(KEYS) for _ in range(3)] == [0, 0, 0]


def test_allowance_is_used_up_and_fills_again() -> None:
    clock = Clock()
    allowance = Allowance(3, 2, clock)
    assert [allowance.take("a") for _ in range(4)] == [True, True, True, False]
    assert allowance.take("b")
    clock.now += 0.5
    assert [allowance.take("a") for _ in range(2)] == [True, False]
    clock.now += 100
    assert [allowance.take("a") for _ in range(4)] == [True, True, True, False]
