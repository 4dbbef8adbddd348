"""``fedlens data``: images in, checked, split and dealt."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

import fedlens
from fedlens.cli.output import JsonOption, show, table
from fedlens.cli.progress import shown

app = typer.Typer(name="data", help="Import, audit, split, deal and draw images.", no_args_is_help=True)

_LEFT_OUT = "left out"
_SPLITS = ("train", "validation", "test")

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Study folder made by `fedlens data import`.")]


@app.command("import", epilog="Example: fedlens data import ~/chest_xray ~/brain_mri --out images")
def import_(
    context: typer.Context,
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE...", help="Image folders, CSV manifests or MedMNIST .npz files."),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Study folder to make.")],
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy images in instead of referring to them.")
    ] = False,
    deidentify: Annotated[
        bool, typer.Option("--deidentify", help="Copy DICOM files in de-identified (PS3.15 Annex E).")
    ] = False,
    name: Annotated[str, typer.Option(help="Name of the source, instead of the folder's.")] = "",
    groups: Annotated[
        str,
        typer.Option(metavar="FILE:PATHCOL:GROUPCOL", help="CSV that says which patient each image is of."),
    ] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier import.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Read image folders as people download them into one manifest.

    Knows the layouts of the Kermany chest radiographs, the Nickparvar brain MRI, HAM10000 and MedMNIST,
    folders with one folder per class, CSV manifests and DICOM folders. Every file that cannot be taken is
    named with the reason.
    """
    with shown() as progress:
        report = fedlens.import_images(
            sources,
            out,
            copy=copy,
            deidentify=deidentify,
            name=name,
            groups=groups,
            overwrite=overwrite,
            progress=progress,
        )
    show(
        context,
        {"folder": str(out), **report.as_dict()},
        report.summary(),
        f"\nNext: fedlens data audit {out}",
    )


@app.command("deidentify", epilog="Example: fedlens data deidentify scans clean")
def deidentify_(
    context: typer.Context,
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE...", help="DICOM folders or files.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for the de-identified images.")],
    secret: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The secret behind pseudonyms; OUT.secret by default, made on first use."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Copy DICOM images without what tells whose they are (PS3.15 Annex E, Basic Profile).

    Identifiers and private tags go, UIDs are replaced, dates are moved by one offset for each patient. Pixels
    stay as they are: images that may have text burnt into them are named, for somebody to look at.
    """
    with shown() as progress:
        report = fedlens.deidentify_folder(sources, out, secret=secret, progress=progress)
    show(context, report.as_dict(), report.summary())


@app.command(epilog="Example: fedlens data audit images")
def audit(context: typer.Context, folder: Folder, as_json: JsonOption = False) -> None:
    """Find copies, leaks between splits, and differences that give the class away.

    Writes audit.json and audit.txt into the folder, and joins groups that share copies, so that no split
    and no hospital cuts them.
    """
    with shown() as progress:
        report = fedlens.audit(folder, progress=progress)
    show(context, report.to_json(), report.text(), f"\nNext: fedlens study new study.toml --data {folder}")


@app.command(epilog="Example: fedlens data split images --validation 0.1 --test 0.2 --seed 0")
def split(
    context: typer.Context,
    folder: Folder,
    validation: Annotated[float, typer.Option(help="Fraction for choosing settings.")] = 0.1,
    test: Annotated[float, typer.Option(help="Fraction for the final figures.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Write a stratified split that no patient and no copy crosses into the manifest.

    A study makes its own split from its study file; this is for using the manifest elsewhere.
    """
    manifest = fedlens.split(fedlens.load_manifest(folder), validation=validation, test=test, seed=seed)
    manifest.save()
    counts = Counter((record.label, record.split or _LEFT_OUT) for record in manifest)
    splits = [name for name in (*_SPLITS, _LEFT_OUT) if any(name == found for _, found in counts)]
    labels = manifest.labels()
    result = {label: {name: counts[label, name] for name in splits} for label in labels}
    rows = [[label, *result[label].values()] for label in labels]
    show(context, {"folder": str(folder), "images": result}, table("Images", ["label", *splits], rows))


@app.command(epilog="Example: fedlens data share study.toml --out machines --copy")
def share(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Study file.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the hospitals' folders go.")],
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy images in, so that the folders can be carried away.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Deal a study's images into one folder per hospital, to rehearse a federation of separate machines.

    Hospitals get the images, splits and labels that `fedlens run` would give them. Folders that exist are
    never overwritten; if anything fails, none is made.
    """
    study = fedlens.load_study(file)
    with shown() as progress:
        dealt = fedlens.share_images(study, out, copy=copy, progress=progress)
    counts = Counter((hospital, record.split) for hospital, held in dealt.items() for record in held)
    images = {hospital: {split: counts[hospital, split] for split in _SPLITS} for hospital in dealt}
    rows = [[hospital, *splits.values(), sum(splits.values())] for hospital, splits in images.items()]
    labels = sorted({label for held in dealt.values() for label in held.labels()})
    # Such a list in JSON is one in TOML, too.
    wanted = f"\nHospitals apart need in [data]: classes = {json.dumps(labels, ensure_ascii=False)}"
    show(
        context,
        {"folder": str(out), "images": images},
        table(f"Images dealt into {out}", ["hospital", *_SPLITS, "all"], rows),
        *([] if study.data.classes else [wanted]),
    )


@app.command(epilog="Example: fedlens data phantoms phantoms --images 600")
def phantoms(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(metavar="DIR", help="New folder for the drawn images.")],
    images: Annotated[int, typer.Option(help="How many.")] = 1200,
    seed: Annotated[int, typer.Option(help="Of everything drawn.")] = 0,
    size: Annotated[int, typer.Option(help="Typical side, pixels.")] = 160,
    as_json: JsonOption = False,
) -> None:
    """Draw stand-in images of three modalities with known lesions and known short cuts."""
    with shown() as progress:
        fedlens.draw_phantoms(out, images=images, seed=seed, size=size, progress=progress)
    text = f"{images:,} phantoms drawn in {out}\n\nNext: fedlens data import {out} --out images"
    show(context, {"folder": str(out), "images": images}, text)
