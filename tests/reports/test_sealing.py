from __future__ import annotations

from typing import Any

from fedlens.reports.sealing import sealing_notes

START = {"event": "start", "sealed": True, "hospitals": ["A", "B", "C"]}


def a_round(number: int, hospitals: str = "ABC", **sealing: Any) -> dict[str, Any]:
    return {
        "event": "round",
        "round": number,
        "participants": ["A", "B", "C"],
        "hospitals": {name: {"bytes_up": 300} for name in hospitals},
        "sealing": {
            "survivors": len(hospitals),
            "values": 100,
            "value_bits": 16,
            "saturated": 2,
            "seconds": {"sealing": 0.5, "training": 10.0},
            **sealing,
        },
    }


def test_a_sealed_run_is_described_by_its_figures() -> None:
    first, second = sealing_notes([START, a_round(1), a_round(2, "AB")])
    assert first.startswith(
        "Sealed: the coordinator could read sums only, each over 2 or more of 3 hospitals."
    )
    assert (
        "0.75 times" in first and "1.0 s beside 20.0 s" in first and "4 of 500 values were clipped" in first
    )
    assert second.startswith("In 1 of 2 rounds some hospital was missing")


def test_a_plain_run_is_marked() -> None:
    first, second = sealing_notes([{**START, "sealed": False}, a_round(1)])
    assert first.startswith("Not sealed") and second == "No hospital dropped out of any round."


def test_nothing_is_said_of_a_run_without_rounds() -> None:
    assert sealing_notes([]) == sealing_notes([START]) == ()
