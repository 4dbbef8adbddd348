"""``fedlens demo``: everything once, on drawn images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import fedlens
from fedlens.cli.output import JsonOption, show
from fedlens.cli.progress import shown


def demo(
    context: typer.Context,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make.")] = Path("demo"),
    as_json: JsonOption = False,
) -> None:
    """Draw images, import, audit, train, compare, explain and report: no data and no network needed."""
    with shown() as progress:
        result = fedlens.run_demo(out, progress=progress)
    show(context, result.as_dict(), result.table, result.next_steps())


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: fedlens demo --out demo")(demo)
