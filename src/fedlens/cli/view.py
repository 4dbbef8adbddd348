"""``fedlens view``: pages for the clinician and for the study lead."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from fedlens.cli.progress import shown
from fedlens.settings import validated


def view(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Output folder of a run or comparison, even a running one.")
    ],
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PATH]...", help="Further images, DICOM included, and folders of them."),
    ] = None,
    arm: Annotated[str, typer.Option(help="Whose network, in a comparison.")] = "federated",
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on. Any but this machine's own needs --accounts, --certificate and --key."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8765,
    certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TLS certificate chain, PEM.")
    ] = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its private key, PEM.")] = None,
    accounts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Who may log in; made with fedlens account add."),
    ] = None,
    reviewer: Annotated[
        str, typer.Option(help="Who reviews where nobody logs in; your user name by default.")
    ] = "",
    hospital: Annotated[str, typer.Option(help="Whose images are shown; all that are here by default.")] = "",
    browser: Annotated[bool, typer.Option("--browser", help="Open the pages in your browser.")] = False,
) -> None:
    """Show cases with map, probabilities and advice in a browser, and the study's progress.

    Only this machine can reach the pages unless --host says otherwise. Reviews, uploads and the audit log
    are kept in RUN/viewer.
    """
    from fedlens.viewer.app import create_app
    from fedlens.viewer.opening import opened
    from fedlens.viewer.serving import check, serve
    from fedlens.viewer.settings import ViewerSettings

    given = {
        "host": host,
        "port": port,
        "certificate": certificate,
        "key": key,
        "accounts": accounts,
        "reviewer": reviewer,
        "hospital": hospital,
    }
    settings = validated(ViewerSettings, given, "Options")
    check(settings)
    with (
        shown() as progress,
        opened(run, settings, arm=arm, paths=paths or (), progress=progress) as services,
    ):
        serve(create_app(services), settings, ready=webbrowser.open if browser else None)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: fedlens view runs/chest inbox/")(view)
