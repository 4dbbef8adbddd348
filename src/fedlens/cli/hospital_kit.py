"""``fedlens hospital request``, ``install`` and ``members``: a hospital's way into a federation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedlens.cli.output import JsonOption, near, show, table

if TYPE_CHECKING:
    from fedlens.deployment.members import Members

KitOption = Annotated[Path, typer.Option(metavar="DIR", help="The hospital's kit: a folder of its own.")]
FingerprintOption = Annotated[
    str,
    typer.Option(
        metavar="TEXT", help="The members' fingerprint, as compared on the phone; asked for if not given."
    ),
]


def request(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The hospital's, as the file lists it.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A copy of the lead's federation file.")],
    kit: KitOption,
    rotate: Annotated[bool, typer.Option("--rotate", help="Make new keys for an installed kit.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make this hospital's private keys, which stay here, and a request for the lead."""
    from fedlens.deployment.federation import load_federation
    from fedlens.deployment.joining import make_request

    made = make_request(name, load_federation(file), kit, rotate=rotate)
    show(
        context,
        {"file": str(made.file), "name": name, "key": made.fingerprint},
        f"{near(made.file)} written; it holds nothing secret\n"
        f"Key of {name}: {made.fingerprint}\n"
        "Read it to the lead on the phone: the lead's `fedlens provision` shows the same.\n\n"
        f"Next: send {made.file.name} to the lead, then: "
        f"fedlens hospital install {name}.approved.zip --kit {near(kit)}",
    )


def install(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="NAME.approved.zip, as the lead sent it.")],
    kit: KitOption,
    fingerprint: FingerprintOption = "",
    as_json: JsonOption = False,
) -> None:
    """Make the kit out of the lead's approval and the keys at home."""
    from fedlens.deployment.exchange import read_approval
    from fedlens.deployment.joining import install as run_install

    fingerprint = fingerprint or _compared(read_approval(file).members)
    made = run_install(file, kit, fingerprint=fingerprint)
    show(
        context,
        {"kit": str(kit), "name": made.name, "members_fingerprint": made.members().fingerprint()},
        f"{near(kit)} is the kit of {made.name} in federation {made.federation}\n"
        f"What this hospital agrees to stands in {near(made.policy)}.\n\n"
        f"Next: read that file, then: fedlens hospital start --kit {near(kit)} --data DIR",
    )


def members(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="members.json, as the lead sent it.")],
    kit: KitOption,
    fingerprint: FingerprintOption = "",
    as_json: JsonOption = False,
) -> None:
    """Take newer members: a hospital came, went, or has new keys."""
    from fedlens.deployment.joining import accept_members
    from fedlens.deployment.members import load_members

    fingerprint = fingerprint or _compared(load_members(file))
    taken = accept_members(kit, file, fingerprint=fingerprint)
    show(
        context,
        {"kit": str(kit), "members_fingerprint": taken.fingerprint(), "hospitals": list(taken.hospitals)},
        f"{near(kit)} trusts {len(taken.hospitals)} hospitals now: {', '.join(taken.hospitals)}",
    )


def _compared(found: Members) -> str:
    """Show whose keys are about to be trusted, and go on only if they were compared on the phone.

    Standard error, since standard output is the result's.
    """
    from rich.console import Console

    from fedlens.deployment.members import key_fingerprint

    rows = [("coordinator", key_fingerprint(found.coordinator))]
    rows += [(name, key_fingerprint(key)) for name, key in found.hospitals.items()]
    fingerprint = found.fingerprint()
    Console(stderr=True, highlight=False).print(
        table(f"Federation {found.federation}", ["member", "key"], rows, text=2)
    )
    typer.echo(f"\nMembers: {fingerprint}\nCompare it with the lead on the phone, group by group.", err=True)
    typer.confirm("Does the lead read the same?", abort=True, err=True)
    return fingerprint


def register(app: typer.Typer) -> None:
    """Add the commands to ``fedlens hospital``."""
    app.command(epilog="Example: fedlens hospital request north federation.toml --kit north")(request)
    app.command(epilog="Example: fedlens hospital install north.approved.zip --kit north")(install)
    app.command(epilog="Example: fedlens hospital members members.json --kit north")(members)
