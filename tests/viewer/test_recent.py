"""What was used last."""

from __future__ import annotations

from fedlens.viewer.recent import Recent


def test_what_was_used_least_recently_goes_first() -> None:
    recent: Recent[str, int] = Recent(2)
    recent.keep("a", 1)
    recent.keep("b", 2)
    assert recent.get("a") == 1
    recent.keep("c", 3)
    assert (recent.get("a"), recent.get("b"), recent.get("c")) == (1, None, 3)


def test_a_key_keeps_its_latest_value() -> None:
    recent: Recent[str, int] = Recent(2)
    for value in (1, 2, 3):
        recent.keep("a", value)
    recent.keep("b", 4)
    assert (recent.get("a"), recent.get("b")) == (3, 4)
