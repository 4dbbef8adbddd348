"""``fedlens report``: the report again, from what a run wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import fedlens
from fedlens.cli.output import JsonOption, near, show


def report(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Output folder of a run or comparison.")],
    as_json: JsonOption = False,
) -> None:
    """Rebuild tables, figures and report.html without training anything."""
    path = fedlens.write_report(run)
    show(context, {"report": str(path)}, f"Open {near(path)}")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: fedlens report runs/chest")(report)
