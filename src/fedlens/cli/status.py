"""``fedlens status``: where a run stands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

import fedlens
from fedlens.cli.output import JsonOption, show, table

_ROUNDS = 10


def status(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Output folder of a run or comparison.")],
    as_json: JsonOption = False,
) -> None:
    """Show rounds done, the last rounds' figures, and each hospital's own."""
    found = fedlens.run_status(run)
    parts: list[str | Table] = []
    for one in found:
        ended = f" ({one.reason})" if one.reason else ""
        parts.append(
            f"{one.folder}: {one.state}{ended}, {len(one.events)} of {one.rounds} rounds, {one.strategy}, "
            + _travel(one)
        )
        if one.events:
            parts += ["", _rounds(one), "", _hospitals(one), ""]
    show(context, {"runs": [one.as_dict() for one in found]}, *parts)


def _travel(status: fedlens.RunStatus) -> str:
    if status.sealed:
        return "sealed: hospitals keep their own figures at home"
    return "updates in the clear" if len(status.hospitals) > 1 else "all in one place"


def _rounds(status: fedlens.RunStatus) -> Table:
    rows = []
    for event in status.events[-_ROUNDS:]:
        measured = event.get("evaluation", {})
        rows.append(
            [
                event["round"],
                f"{len(event.get('hospitals', {}))} of {len(event['participants'])}",
                _figure(event.get("loss")),
                _figure(event.get("accuracy")),
                _figure(measured.get("loss")),
                _figure(measured.get("accuracy")),
                f"{sum(event['seconds'].values()) + measured.get('seconds', 0):.1f}",
            ]
        )
    columns = ["round", "hospitals", "loss", "accuracy", "validation loss", "accuracy", "seconds"]
    return table(f"Last {len(rows)} rounds, training and validation", columns, rows, text=0)


def _hospitals(status: fedlens.RunStatus) -> Table:
    last = status.last or {}
    measured = (status.evaluated or {}).get("evaluation", {})
    rows = []
    for name in status.hospitals:
        trained, tested = last.get("hospitals", {}).get(name, {}), measured.get("hospitals", {}).get(name, {})
        trouble = last.get("refused", {}).get(name) or last.get("missing", {}).get(name) or ""
        rows.append(
            [
                name,
                trained.get("images", "-"),
                _figure(trained.get("loss")),
                _figure(tested.get("loss")),
                _figure(tested.get("accuracy")),
                f"{trained['bytes_up'] / 1e6:.2f}" if "bytes_up" in trained else "-",
                trouble,
            ]
        )
    columns = ["hospital", "images", "training loss", "validation loss", "accuracy", "MB up", "trouble"]
    return table("Hospitals, last round", columns, rows)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: fedlens status runs/chest")(status)
