"""What commands print: a result for people or for machines, and errors in three voices."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

from fedlens.errors import FedLensError

_JSON = "json"
_PIPE_WIDTH = 1000


def _remember(context: typer.Context, wanted: bool) -> bool:
    # Contexts of one command line share ``meta``, so the error printer knows which voice is wanted.
    context.meta[_JSON] = wanted
    return wanted


JsonOption = Annotated[
    bool,
    typer.Option("--json", callback=_remember, help="Print one JSON object for machines on standard output."),
]


def use_json(context: typer.Context) -> None:
    """Print results and errors as JSON, as ``--json`` does."""
    context.meta[_JSON] = True


def show(context: typer.Context, result: dict[str, Any], *readable: RenderableType) -> None:
    """Print a result on standard output: JSON if asked for, else ``readable``, one after another."""
    if context.meta.get(_JSON):
        typer.echo(json.dumps(result, allow_nan=False))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        # A pipe has no width, so nothing may be cut or wrapped to fit one.
        console.width = _PIPE_WIDTH
    for part in readable:
        console.print(part, soft_wrap=isinstance(part, str), markup=False)


def show_error(context: typer.Context, error: FedLensError) -> None:
    """Print what happened, why, and what to do; as JSON on standard output too if asked for."""
    if context.meta.get(_JSON):
        voices = {"error": error.what, "why": error.why, "fix": error.fix, "exit_code": error.exit_code}
        typer.echo(json.dumps(voices))
    console = Console(stderr=True, highlight=False)
    console.print(f"[bold red]Error:[/] {escape(error.what)}", soft_wrap=True)
    for voice in filter(None, (error.why, error.fix)):
        console.print(f"  {voice}", soft_wrap=True, markup=False)


def near(path: Path) -> Path:
    """The path as one would type it here: relative where it lies below the working folder."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, text: int = 1) -> Table:
    """A table whose first ``text`` columns are text and whose others are figures."""
    result = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        # On a narrow terminal text gives way; half a figure would be a wrong figure.
        result.add_column(column, justify="left" if number < text else "right", no_wrap=number >= text)
    for row in rows:
        result.add_row(*(f"{cell:,}" if isinstance(cell, int) else escape(str(cell)) for cell in row))
    return result
