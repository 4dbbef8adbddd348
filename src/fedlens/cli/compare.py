"""``fedlens compare``: all arms of a study, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import fedlens
from fedlens.cli.output import JsonOption, near, show
from fedlens.cli.progress import shown
from fedlens.errors import SettingsError
from fedlens.study import Study


def compare(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Study file.")],
    seeds: Annotated[
        str, typer.Option(metavar="0,1,2", help="Repeat with these seeds; the study's by default.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Train every arm on the same splits with the same budget, and write the comparison and report.

    Arms: each hospital alone, all images at one place, federated, and federated with explanations. What is
    finished is kept, so the same command goes on after an interruption.
    """
    context.meta["resume"] = f"fedlens compare {file}" + (f" --seeds {seeds}" if seeds else "")
    study = fedlens.load_study(file)
    if seeds:
        study = _with_seeds(study, seeds)
    with shown() as progress:
        result = fedlens.compare(study, progress=progress)
    files = {"folder": str(result.folder), "report": str(result.report), "csv": str(result.csv)}
    show(
        context,
        {**files, "table": result.table},
        result.table,
        f"\nOpen {near(result.report)}\nFigures: {near(result.csv)}",
    )


def _with_seeds(study: Study, seeds: str) -> Study:
    try:
        numbers = tuple(int(seed) for seed in seeds.split(","))
    except ValueError as error:
        raise SettingsError(
            f"--seeds {seeds!r} is no list of numbers.", fix="For example: --seeds 0,1,2"
        ) from error
    return study.model_copy(update={"compare": study.compare.model_copy(update={"seeds": numbers})})


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: fedlens compare study.toml --seeds 0,1,2")(compare)
