"""``fedlens card``: the model card of a run's network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import fedlens
from fedlens.cli.output import JsonOption, near, show
from fedlens.cli.progress import shown


def card(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Output folder of a run or comparison.")],
    arm: Annotated[
        str, typer.Option(help="Whose network, in a comparison; the federated one by default.")
    ] = "",
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to write; RUN by default.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a network's model card as a page and as Markdown, for those who have to approve its use.

    Data by hospital and class, training, results with intervals, calibration, explanation quality, known
    failures, intended use, limits, digests. No image is in it.
    """
    with shown() as progress:
        written = fedlens.write_card(run, arm=arm, out=out, progress=progress)
    show(
        context,
        {"page": str(written.page), "text": str(written.text)},
        f"Open {near(written.page)}, or read {near(written.text)}",
    )


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: fedlens card runs/chest")(card)
