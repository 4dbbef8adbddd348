"""One finished round in one line: who was in, who dropped out, bytes, seconds."""

from __future__ import annotations

from typing import Any

from fedlens.reports.maps import maps_said


def round_line(event: dict[str, Any]) -> str:
    """A round's event of ``history.jsonl`` for people.

    Bytes are a hospital's mean, both ways, keys and shares included. Sealing seconds are those of all
    hospitals together, as are training seconds.
    """
    hospitals: dict[str, dict[str, Any]] = event["hospitals"]
    parts = [f"round {event['round']}: {', '.join(hospitals)}"]
    away = {**event["missing"], **event["refused"]}
    out = [name for name in event["participants"] if name not in hospitals]
    parts += [f"without {name} ({_short(away.get(name, 'dropped out'))})" for name in out]
    parts.append(f"loss {event['loss']:.4f}")
    if event.get("evaluation"):
        parts.append(f"validation {100 * event['evaluation']['accuracy']:.1f} %")
    said = maps_said(event.get("explanation", {}).get("figures", {}))
    parts += [said] if said else []
    up, down = (_mean(hospitals, key) / 1e6 for key in ("bytes_up", "bytes_down"))
    parts.append(f"{up:.2f} MB up, {down:.2f} MB down each")
    if "sealing" in event:
        spent = event["sealing"]["seconds"]
        parts.append(f"sealed, {spent['sealing']:.2f} s sealing, {spent['training']:.1f} s training")
    else:
        parts.append(f"in the clear, {event['seconds']['training']:.1f} s training")
    return "; ".join(parts)


def _mean(hospitals: dict[str, dict[str, Any]], key: str) -> float:
    return float(sum(said[key] for said in hospitals.values()) / max(1, len(hospitals)))


def _short(reason: str) -> str:
    return reason.split(". ")[0].rstrip(".")
