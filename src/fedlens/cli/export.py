"""``fedlens export``: a trained network as a file that runs without torch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

import fedlens
from fedlens.cli.output import JsonOption, near, show, table
from fedlens.cli.progress import shown
from fedlens.errors import SettingsError


def export(
    context: typer.Context,
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Output folder of a run or comparison, or a checkpoint.")
    ],
    onnx: Annotated[bool, typer.Option("--onnx", help="Write an ONNX file.")] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Write one with eight-bit arithmetic too, for small machines.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write; RUN/export by default.")
    ] = None,
    arm: Annotated[str, typer.Option(help="Whose network, in a comparison.")] = "federated",
    temperature: Annotated[
        float | None,
        typer.Option(help="What logits are divided by; by default what was fitted for this network, else 1."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Export a network to ONNX with its classes, preparation and temperature; checked against torch.

    Eight bits take their ranges from training images of the run, which must be at hand.
    """
    if not (onnx or int8):
        raise SettingsError("Nothing to export.", fix=f"Say what: fedlens export {run} --onnx")
    with shown() as progress:
        written = fedlens.export_run(
            run, int8=int8, out=out, arm=arm, temperature=temperature, progress=progress
        )
    rows = [
        [
            str(near(entry.path)),
            entry.precision,
            f"{entry.size / 1e6:.1f} MB",
            f"{entry.largest_difference:.1g}",
            f"{entry.same_decisions:.1%}",
            "–" if entry.accuracy is None else f"{entry.accuracy:.1%}",
            "–" if entry.torch_accuracy is None else f"{entry.torch_accuracy:.1%}",
        ]
        for entry in written
    ]
    columns = ["file", "precision", "size", "logits differ by", "same decisions", "accuracy", "torch's"]
    images = f"{written[0].images:,} {'made-up' if written[0].accuracy is None else 'validation'} images"
    show(
        context,
        {"files": [{**asdict(entry), "path": str(entry.path)} for entry in written]},
        table(f"Compared with torch on {images}", columns, rows, text=2),
        f"\nPredict with: fedlens predict --onnx {near(written[-1].path)} IMAGE...",
    )


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: fedlens export runs/chest --onnx --int8")(export)
