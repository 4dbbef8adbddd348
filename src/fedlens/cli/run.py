"""``fedlens run``: one federated training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import fedlens
from fedlens.cli.output import JsonOption, near, show, table
from fedlens.cli.progress import shown
from fedlens.cli.round_line import round_line


def run(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Study file.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train one classifier across the study's hospitals."""
    context.meta["resume"] = f"fedlens run {file} --resume"
    with shown() as progress:
        result = fedlens.run(
            fedlens.load_study(file),
            resume=resume,
            watch=lambda event: progress.line(round_line(event)),
            progress=progress,
        )
    rows = [[name, f"{value:.4f}"] for name, value in result.metrics.items()]
    lines = [result.advice] if result.advice else []
    lines += [f"Open {near(result.report)}", f"Next: fedlens explain {near(result.folder)} IMAGE..."]
    show(
        context,
        {
            "folder": str(result.folder),
            "report": str(result.report),
            "metrics": dict(result.metrics),
            "advice": result.advice,
        },
        table("Test images, all hospitals", ["metric", "value"], rows),
        "\n".join(("", *lines)),
    )


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: fedlens run study.toml --resume")(run)
