"""``fedlens pacs``: images out of a hospital's archive, and results back into it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

import fedlens
from fedlens.cli.output import JsonOption, show, table
from fedlens.cli.progress import shown
from fedlens.errors import PacsError, SettingsError
from fedlens.explain.methods import RECOMMENDED, method_names
from fedlens.pacs.settings import Server, Tls, Wanted, parse_server

PASSWORD = "FEDLENS_PACS_PASSWORD"
TOKEN = "FEDLENS_PACS_TOKEN"

app = typer.Typer(
    name="pacs",
    help="Pull images from a PACS, write results as DICOM, push them back.",
    no_args_is_help=True,
    epilog=f"A password is read from {PASSWORD}, a bearer token from {TOKEN}, both in the environment.",
)

Address = Annotated[
    str,
    typer.Argument(
        metavar="PACS",
        help="dicom://AETITLE@HOST:PORT, dicom+tls://AETITLE@HOST:PORT or https://HOST/dicom-web.",
    ),
]
OwnTitle = Annotated[str, typer.Option("--aet", help="Our AE title, as the PACS knows it.")]
User = Annotated[str, typer.Option(help=f"User at a web server; its password is in {PASSWORD}.")]
Authority = Annotated[Path | None, typer.Option("--ca", help="PEM file of who signed its certificate.")]
Certificate = Annotated[Path | None, typer.Option("--cert", help="PEM file of our certificate.")]
Key = Annotated[Path | None, typer.Option("--key", help="PEM file of its key.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait for an answer.", min=1.0)]


@app.command(epilog="Example: fedlens pacs pull dicom://ARCHIVE@pacs:104 --out scans --patient 4711")
def pull(
    context: typer.Context,
    address: Address,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the files go, as STUDY/SERIES/IMAGE.dcm.")],
    patient: Annotated[str, typer.Option(help="Patient ID.")] = "",
    study: Annotated[str, typer.Option(help="Study Instance UID.")] = "",
    series: Annotated[str, typer.Option(help="Series Instance UID, with --study.")] = "",
    accession: Annotated[str, typer.Option(help="Accession number.")] = "",
    modality: Annotated[str, typer.Option(help="Only series of this one: MR, CT, CR, DX, …")] = "",
    dates: Annotated[str, typer.Option(help="Study dates, like 20260101-20260331.")] = "",
    limit: Annotated[int, typer.Option(help="Pull nothing where more objects match.")] = 10_000,
    aet: OwnTitle = "FEDLENS",
    move_port: Annotated[
        int | None,
        typer.Option(help="Have images sent to this port of ours (C-MOVE), where the PACS knows no C-GET."),
    ] = None,
    user: User = "",
    ca: Authority = None,
    cert: Certificate = None,
    key: Key = None,
    timeout: Timeout = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Pull images that a PACS has, over DICOMweb or DICOM's own protocol.

    What is in the folder already is not pulled again, so an interrupted pull goes on with the same command.
    The files are as the PACS has them, with names and all: import them with `--deidentify`.
    """
    wanted = Wanted(patient, study, series, accession, modality, dates, limit)
    server = _server(address, aet, user, ca, cert, key, timeout, move_port)
    with shown() as progress:
        report = fedlens.pull_images(server, wanted, out, progress=progress)
    if not report.found:
        raise PacsError("Nothing in the PACS matches.", fix="Check identifiers, dates and modality.")
    show(
        context,
        report.as_dict(),
        report.summary(),
        f"\nNext: fedlens data import {out} --out images --deidentify",
    )
    if report.failed:
        raise typer.Exit(PacsError.exit_code)


@app.command(epilog="Example: fedlens pacs push https://pacs/dicom-web results")
def push(
    context: typer.Context,
    address: Address,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="DICOM files, or folders of them.")],
    aet: OwnTitle = "FEDLENS",
    user: User = "",
    ca: Authority = None,
    cert: Certificate = None,
    key: Key = None,
    timeout: Timeout = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Store DICOM files in a PACS, over DICOMweb or DICOM's own protocol."""
    server = _server(address, aet, user, ca, cert, key, timeout)
    with shown() as progress:
        report = fedlens.push_images(server, paths, progress=progress)
    show(context, report.as_dict(), report.summary())
    if report.failed:
        raise typer.Exit(PacsError.exit_code)


@app.command(epilog="Example: fedlens pacs results runs/chest scans --out results")
def results(
    context: typer.Context,
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Output folder of a run or comparison, or a checkpoint.")
    ],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="DICOM images, or folders of them.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="New folder for the DICOM objects.")],
    target: Annotated[str, typer.Option(help="Class to explain; the predicted one by default.")] = "",
    method: Annotated[str, typer.Option(help=f"How to explain: {', '.join(method_names())}.")] = RECOMMENDED,
    arm: Annotated[str, typer.Option(help="Whose network, in a comparison.")] = "federated",
    modality: Annotated[str, typer.Option(help="xray, mri, dermoscopy, ct or other; found by default.")] = "",
    threshold: Annotated[
        float, typer.Option(help="Share of the map's maximum from which on a pixel belongs to the region.")
    ] = 0.5,
    fractional: Annotated[bool, typer.Option("--fractional", help="Keep the heat in it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write what a network says about DICOM images as DICOM objects in the images' own studies.

    For each image N: sc-N.dcm (the heat map over the image), seg-N.dcm (the region as a segmentation) and
    sr-N.dcm (a structured report with class, probabilities and algorithm).
    """
    with shown() as progress:
        written = fedlens.write_results(
            run,
            images,
            out,
            target=target,
            method=method,
            arm=arm,
            modality=modality,
            threshold=threshold,
            fractional=fractional,
            progress=progress,
        )
    rows = [[item.image.name, item.predicted, f"{item.probability:.1%}", len(item.files)] for item in written]
    show(
        context,
        {"folder": str(out), "images": [item.as_dict() for item in written]},
        table("", ["image", "likeliest", "probability", "objects"], rows, text=2),
        f"\nNext: fedlens pacs push PACS {out}",
    )


def _server(
    address: str,
    aet: str,
    user: str,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    timeout: float,
    move_port: int | None = None,
) -> Server:
    password, token = os.environ.get(PASSWORD, ""), os.environ.get(TOKEN, "")
    if user and not password:
        raise SettingsError(f"There is no password for {user}.", fix=f"Put it into {PASSWORD}.")
    return parse_server(
        address,
        own_title=aet,
        move_port=move_port,
        user=user,
        password=password,
        token="" if user else token,
        tls=Tls(ca, cert, key),
        timeout=timeout,
    )
