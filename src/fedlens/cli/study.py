"""``fedlens study``: write and check study files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

import fedlens
from fedlens.cli.output import JsonOption, show, table
from fedlens.cli.progress import shown

app = typer.Typer(name="study", help="Write and check study files.", no_args_is_help=True)


@app.command(epilog="Example: fedlens study new study.toml --data images")
def new(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Study file to write, ending with .toml.")],
    data: Annotated[Path, typer.Option(metavar="DIR", help="Study folder made by `fedlens data import`.")],
    name: Annotated[str, typer.Option(help="Name of the study; the file's own by default.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a commented study file with every key at its default, the paper's settings."""
    fedlens.new_study(file, data, name=name, overwrite=overwrite)
    show(context, {"file": str(file)}, f"{file} written\n\nNext: edit it, then: fedlens study check {file}")


@app.command(epilog="Example: fedlens study check study.toml")
def check(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Study file.")],
    as_json: JsonOption = False,
) -> None:
    """Validate a study file and show which hospital gets how many images of which class."""
    study = fedlens.load_study(file)
    with shown() as progress:
        manifest = fedlens.plan_images(study, progress=progress)
    counts = Counter((record.hospital, record.split, record.label) for record in manifest)
    hospitals = sorted({hospital for hospital, _, _ in counts})
    labels = study.data.classes or manifest.labels()
    images = {
        hospital: {
            split: {label: counts[hospital, split, label] for label in labels}
            for split in ("train", "validation", "test")
        }
        for hospital in hospitals
    }
    rows = [
        [hospital, split, *by_label.values(), sum(by_label.values())]
        for hospital, splits in images.items()
        for split, by_label in splits.items()
    ]
    title = f"{study.name}: {len(manifest):,} images"
    show(
        context,
        {"file": str(file), "name": study.name, "digest": study.digest(), "images": images},
        table(title, ["hospital", "split", *labels, "all"], rows, text=2),
        f"\nNext: fedlens run {file}, or all arms: fedlens compare {file}",
    )
