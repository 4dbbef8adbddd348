"""``fedlens hospital``: a hospital's kit, and its service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedlens.cli import hospital_kit

app = typer.Typer(name="hospital", no_args_is_help=True, help="Take part in a federation as a hospital.")


@app.command(epilog="Example: fedlens hospital start --kit north --data images")
def start(
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="Study folder with this hospital's images, from an import.")
    ],
    kit: Annotated[Path, typer.Option(metavar="DIR", help="The hospital's kit.", envvar="FEDLENS_KIT")],
) -> None:
    """Run this hospital's service and its connection until interrupted."""
    from fedlens.deployment.kit import open_kit
    from fedlens.deployment.policy import load_policy
    from fedlens.deployment.supervisor import run_hospital
    from fedlens.imaging.manifest import load_manifest

    opened = open_kit(kit, "hospital")
    images = len(load_manifest(data))
    policy = load_policy(opened.policy)
    typer.echo(
        f"Hospital {opened.name} of {opened.federation}: {images:,} images in {data}\n"
        f"Policy {opened.policy}: sealing {policy.sealing}, {policy.minimum_hospitals} hospitals or more "
        f"in a sum, at most {policy.most_rounds} rounds\n"
        f"Connecting to the coordinator at {opened.host}:{opened.port}\n"
        f"Logs in {kit / 'logs'} and {opened.flare}. End with Ctrl-C."
    )
    run_hospital(opened, data.absolute(), typer.echo)


hospital_kit.register(app)
