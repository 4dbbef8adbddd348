"""Steps that a thread takes while nobody asks for anything."""

from __future__ import annotations

import threading

import pytest

from fedlens.errors import HistoryError
from fedlens.viewer import background
from fedlens.viewer.background import Background


def test_it_steps_until_it_is_told_to_stop() -> None:
    enough, steps = threading.Event(), []

    def step() -> bool:
        steps.append(threading.current_thread().name)
        if len(steps) == 5:
            enough.set()
        return len(steps) < 5

    work = Background(step)
    work.start()
    assert enough.wait(10)
    work.stop()
    assert steps == ["viewer-background"] * 5


@pytest.mark.parametrize("error", [HistoryError("The disk is full."), OSError("No space left on device")])
def test_it_goes_on_after_a_failure(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    monkeypatch.setattr(background, "_PAUSE_AFTER_FAILURE", 0.0)
    again, failures = threading.Event(), [error]

    def step() -> bool:
        if failures:
            raise failures.pop()
        again.set()
        return False

    work = Background(step)
    work.start()
    assert again.wait(10)
    work.stop()
    assert type(error).__name__ in caplog.text


def test_it_may_be_stopped_before_it_began() -> None:
    Background(lambda: True).stop()


def test_no_step_begins_while_it_is_held() -> None:
    stepped, between = threading.Event(), []

    def step() -> bool:
        between.append("step")
        stepped.set()
        return True

    work = Background(step)
    with work.held():
        with work.held():
            work.start()
        between.append("still held")
    assert stepped.wait(10)
    assert between[:2] == ["still held", "step"]
    with work.held():
        work.stop()
