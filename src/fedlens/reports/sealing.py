"""What a report says of how updates travelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Event = Mapping[str, Any]


def sealing_notes(events: Sequence[Event]) -> tuple[str, ...]:
    """Sentences for the report, from the events of a federated run's ``history.jsonl``."""
    start = next((event for event in events if event["event"] == "start"), None)
    rounds = [event for event in events if event["event"] == "round"]
    if start is None or not rounds:
        return ()
    away = sum(1 for event in rounds if len(event["hospitals"]) < len(event["participants"]))
    missed = (
        "No hospital dropped out of any round."
        if not away
        else f"In {away:,} of {len(rounds):,} rounds some hospital was missing; history.jsonl says which."
    )
    if not start.get("sealed"):
        return (
            "Not sealed: every hospital's updates and counts travelled in the clear, as the study asked or "
            "because it has fewer than three hospitals.",
            missed,
        )
    sealed = [event["sealing"] for event in rounds]
    least = min(entry["survivors"] for entry in sealed)
    values = sum(entry["values"] * entry["survivors"] for entry in sealed)
    clipped = sum(entry["saturated"] for entry in sealed)
    up = sum(said["bytes_up"] for event in rounds for said in event["hospitals"].values())
    plain = 4 * values
    spent = [sum(entry["seconds"][key] for entry in sealed) for key in ("sealing", "training")]
    return (
        f"Sealed: the coordinator could read sums only, each over {least:,} or more of "
        f"{len(start['hospitals']):,} hospitals. Values had {sealed[-1]['value_bits']} bits; a hospital sent "
        f"{up / plain:.2f} times the bytes of plain float32. Sealing took {spent[0]:.1f} s beside "
        f"{spent[1]:.1f} s of training; {clipped:,} of {values:,} values were clipped.",
        missed,
    )
