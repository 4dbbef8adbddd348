"""``fedlens predict --onnx``: what an exported network says of images. Imports no torch."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from fedlens.cli.output import near, show, table
from fedlens.cli.progress import shown
from fedlens.errors import DataError
from fedlens.export.runtime import EdgePrediction, predict_onnx
from fedlens.files import write_json, write_text

_TOP = 2


def predict_exported(
    context: typer.Context,
    model: Path,
    paths: Sequence[Path],
    *,
    modality: str = "",
    as_csv: bool = False,
    out: Path | None = None,
) -> None:
    """Predict, print, and write ``predictions.csv`` and ``predictions.json`` to ``out`` if it is given."""
    with shown() as progress:
        found = predict_onnx(model, paths, modality=modality, progress=progress)
    content = {"model": str(model), "images": [_described(image) for image in found]}
    if out is not None:
        write_json(out / "predictions.json", content)
        write_text(out / "predictions.csv", csv_text(found))
    if as_csv:
        typer.echo(csv_text(found), nl=False)
    else:
        rows = [_cells(image) for image in found]
        columns = ["image", "likeliest", "second", "problem"]
        show(context, content, table("", columns, rows, text=4))
    bad = [image for image in found if image.problem]
    if len(bad) == len(found):
        raise DataError(f"None of {len(bad):,} images can be read.", why=f"{bad[0].file}: {bad[0].problem}.")


def csv_text(found: Sequence[EdgePrediction]) -> str:
    """One line for each image; probabilities in columns ``p:CLASS``."""
    classes = next((list(image.probabilities) for image in found if image.probabilities), [])
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["file", "likeliest", *(f"p:{name}" for name in classes), "modality", "problem"])
    for image in found:
        chances = [f"{image.probabilities[name]:.6f}" if image.probabilities else "" for name in classes]
        writer.writerow([image.file, image.predicted, *chances, image.modality, image.problem])
    return stream.getvalue()


def _described(image: EdgePrediction) -> dict[str, Any]:
    return {
        "file": image.file,
        "likeliest": image.predicted or None,
        "probabilities": dict(image.probabilities),
        "modality": image.modality,
        "problem": image.problem or None,
    }


def _cells(image: EdgePrediction) -> list[object]:
    ranked = sorted(image.probabilities.items(), key=lambda entry: -entry[1])[:_TOP]
    named = [f"{name} {chance:.1%}" for name, chance in ranked]
    return [str(near(Path(image.file))), *(named or ["–"] * _TOP), image.problem]
