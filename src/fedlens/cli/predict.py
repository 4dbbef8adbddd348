"""``fedlens predict``: what a trained network says of images, and what to do about it."""

from __future__ import annotations

import csv
import io
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import fedlens
from fedlens.cli.output import near, show, table, use_json
from fedlens.cli.progress import shown
from fedlens.errors import DataError, SettingsError
from fedlens.files import write_json, write_text

if TYPE_CHECKING:
    from fedlens.predicting import Prediction, PredictResult

_MOST_NAMED = 5


class Format(StrEnum):
    """How predictions are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def predict(
    context: typer.Context,
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Output folder of a run or comparison, or a checkpoint.")
    ],
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Images, DICOM included, and folders of them.")
    ],
    arm: Annotated[str, typer.Option(help="Whose network, in a comparison.")] = "federated",
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write predictions.csv and predictions.json there, and maps."),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="What to print.")] = Format.TABLE,
    maps: Annotated[
        bool, typer.Option("--maps", help="Write each image's saliency map; to RUN/predictions by default.")
    ] = False,
    modality: Annotated[
        str,
        typer.Option(
            help="xray, mri, dermoscopy, ct or other; found from the study's manifest or DICOM by default."
        ),
    ] = "",
    onnx: Annotated[
        bool,
        typer.Option(
            "--onnx", help="RUN is a file that fedlens export wrote; probabilities alone, no torch."
        ),
    ] = False,
) -> None:
    """Say for each image how likely each class is, which classes are possible, and what to do.

    Advice is to report the likeliest class, to refer the image to a specialist, or that the network must
    not judge it, each with the reason. One bad file does not stop the rest.
    """
    if form is Format.JSON:
        use_json(context)
    if onnx:
        from fedlens.cli.exported import predict_exported

        if maps:
            raise SettingsError("An exported file draws no maps.", fix="Leave out --maps or --onnx.")
        predict_exported(context, run, paths, modality=modality, as_csv=form is Format.CSV, out=out)
        return
    with shown() as progress:
        found = fedlens.predict_images(
            run, paths, arm=arm, out=out, maps=maps, modality=modality, progress=progress
        )
    content = description(found)
    if out is not None:
        write_json(out / "predictions.json", content)
        write_text(out / "predictions.csv", as_csv(found))
    if form is Format.CSV:
        typer.echo(as_csv(found), nl=False)
    else:
        rows = [_cells(image) for image in found.images]
        columns = ["image", "advice", "likeliest", "set", "why", "probability"]
        show(context, content, table("", columns, rows, text=5), "", _summary(found))
    _warn(found)


def description(found: PredictResult) -> dict[str, Any]:
    """Everything, ready for JSON."""
    return {
        "calibrated": found.calibrated,
        "note": found.note,
        "classes": list(found.classes),
        "images": [image.description() for image in found.images],
    }


def as_csv(found: PredictResult) -> str:
    """One line for each image; probabilities in columns ``p:CLASS``, sets and reasons joined by ``; ``."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    chances = [f"p:{name}" for name in found.classes]
    before = ["file", "advice", "reasons", "likeliest", "set"]
    writer.writerow([*before, *chances, "modality", "distance", "map", "problem"])
    for image in found.images:
        given = dict(image.probabilities)
        writer.writerow(
            [
                image.file,
                image.advice.kind if image.advice else "",
                "; ".join(image.advice.reasons) if image.advice else "",
                image.likeliest[0] if image.likeliest else "",
                "; ".join(image.label_set),
                *(f"{given[name]:.6f}" if name in given else "" for name in found.classes),
                image.modality,
                "" if image.distance is None else f"{image.distance:.4f}",
                image.map,
                image.problem,
            ]
        )
    return stream.getvalue()


def _cells(image: Prediction) -> list[object]:
    name = str(near(Path(image.file)))
    if image.advice is None:
        return [name, "unreadable", "–", "–", image.problem, "–"]
    likeliest, chance = image.likeliest or ("–", None)
    why = "; ".join(image.advice.reasons)
    label_set = ", ".join(image.label_set) or "–"
    return [name, image.advice.kind, likeliest, label_set, why, "–" if chance is None else f"{chance:.1%}"]


def _summary(found: PredictResult) -> str:
    kinds = Counter(image.advice.kind if image.advice else "unreadable" for image in found.images)
    return f"{len(found.images):,} images: " + ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())


def _warn(found: PredictResult) -> None:
    """On standard error: what is not calibrated or could not be read; an error where nothing could be."""
    if found.note:
        typer.echo(found.note, err=True)
    bad = found.unreadable
    if len(bad) == len(found.images):
        raise DataError(
            f"None of {len(bad):,} images can be read.",
            why=f"{bad[0].file}: {bad[0].problem}.",
            fix="Give image files, DICOM included, or folders that hold some.",
        )
    if bad:
        named = "; ".join(f"{image.file}: {image.problem}" for image in bad[:_MOST_NAMED])
        more = f"; and {len(bad) - _MOST_NAMED:,} more" if len(bad) > _MOST_NAMED else ""
        typer.echo(f"{len(bad):,} of {len(found.images):,} images cannot be read: {named}{more}", err=True)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: fedlens predict runs/chest inbox/ --format csv > advice.csv")(predict)
