"""``fedlens explain``: where a trained network looked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import fedlens
from fedlens.cli.output import JsonOption, show, table
from fedlens.cli.progress import shown
from fedlens.explain.methods import RECOMMENDED, method_names

_TOP = 3


def explain(
    context: typer.Context,
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Output folder of a run or comparison, or a checkpoint.")
    ],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Any readable images, DICOM included.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write; RUN/explanations by default.")
    ] = None,
    target: Annotated[str, typer.Option(help="Class to explain; the predicted one by default.")] = "",
    method: Annotated[str, typer.Option(help=f"How to explain: {', '.join(method_names())}.")] = RECOMMENDED,
    arm: Annotated[str, typer.Option(help="Whose network, in a comparison.")] = "federated",
    modality: Annotated[
        str,
        typer.Option(
            help="xray, mri, dermoscopy, ct or other; found from the study's manifest or DICOM by default."
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Draw heat maps of what a network looked at over images, and name the likeliest classes.

    For each image: NAME-figure.png with colour bar and probabilities, NAME.png (the overlay at the image's
    own resolution), NAME.npy (the map) and NAME.json.
    """
    with shown() as progress:
        maps = fedlens.explain_images(
            run, images, out=out, target=target, method=method, arm=arm, modality=modality, progress=progress
        )
    rows = [
        [
            Path(found.file).name,
            found.target_name,
            *(f"{name} {chance:.1%}" for name, chance in found.ranked()[:_TOP]),
        ]
        for found in maps
    ]
    width = max(len(row) for row in rows)
    columns = ["image", "explained", "likeliest", "second", "third"][:width]
    folder = out or run / "explanations"
    show(
        context,
        {"folder": str(folder), "images": [found.description() for found in maps]},
        table("", columns, rows, text=width),
        f"\nOpen {folder}",
    )


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: fedlens explain runs/chest scan1.png scan2.dcm --target PNEUMONIA")(explain)
