"""``fedlens coordinator``: the service that hospitals and the lead connect to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(name="coordinator", no_args_is_help=True, help="Run a federation's coordinator.")


@app.callback()
def _group() -> None:
    """A group, although it has one command so far."""


@app.command(epilog="Example: fedlens coordinator start --kit federation/coordinator")
def start(
    kit: Annotated[Path, typer.Option(metavar="DIR", help="The coordinator's kit.", envvar="FEDLENS_KIT")],
) -> None:
    """Run the coordinator until interrupted."""
    from fedlens.deployment.kit import open_kit
    from fedlens.deployment.supervisor import run_coordinator

    opened = open_kit(kit, "coordinator")
    members = opened.members()
    typer.echo(
        f"Coordinator of {opened.federation} at {opened.host}:{opened.port}, "
        f"{len(members.hospitals)} hospitals: {', '.join(members.hospitals) or 'none yet'}\n"
        f"Members: {members.fingerprint()}\n"
        f"Studies in {opened.studies}, logs in {kit / 'logs'} and {opened.flare}. End with Ctrl-C."
    )
    run_coordinator(opened, typer.echo)
