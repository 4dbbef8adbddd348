from __future__ import annotations

from typing import Any

from fedlens.cli.round_line import round_line


def event(**changes: Any) -> dict[str, Any]:
    hospital = {"bytes_up": 2_000_000, "bytes_down": 4_000_000}
    return {
        "round": 3,
        "participants": ["A", "B", "C"],
        "hospitals": {"A": hospital, "B": hospital},
        "missing": {"C": "At training: The line is dead. Mend it."},
        "refused": {},
        "loss": 0.5,
        "seconds": {"training": 4.0, "aggregation": 0.1},
        **changes,
    }


def test_a_sealed_round_in_one_line() -> None:
    sealing = {"seconds": {"sealing": 0.25, "training": 3.5, "opening": 0.1}}
    line = round_line(event(sealing=sealing, evaluation={"accuracy": 0.75}))
    assert line == (
        "round 3: A, B; without C (At training: The line is dead); loss 0.5000; validation 75.0 %; "
        "2.00 MB up, 4.00 MB down each; sealed, 0.25 s sealing, 3.5 s training"
    )


def test_a_plain_round_says_that_it_is_one() -> None:
    line = round_line(event(missing={}, refused={"C": "no good."}))
    assert "without C (no good)" in line and line.endswith("in the clear, 4.0 s training")


def test_maps_stand_beside_chance() -> None:
    found = {
        "pointing": {"value": 0.625, "times_chance": 3.125},
        "energy": {"value": 0.25, "times_chance": None},
        "strays": {"value": 0.04},
    }
    said = "maps: pointing 62.5 % (3.12 times chance), energy inside 25.0 % (– times chance), 4.0 % stray"
    assert said in round_line(event(explanation={"figures": found}))
    assert "maps: 4.0 % stray" in round_line(event(explanation={"figures": {"strays": {"value": 0.04}}}))
    assert "maps" not in round_line(event(explanation={"figures": {}}))
