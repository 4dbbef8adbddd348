"""``fedlens provision``: the lead's side of a federation of machines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedlens.cli.output import JsonOption, near, show, table

if TYPE_CHECKING:
    from fedlens.deployment.federation import Federation
    from fedlens.deployment.provisioning import Provisioned

COMPARE = (
    "Two people compare them on the phone before anybody relies on these keys: the lead and each hospital "
    "that hospital's key, and the members' fingerprint whenever it changes."
)
_REHEARSED = (
    "REHEARSAL: every hospital's private keys were made on this machine and lie in {folder}. Use them for "
    "trying things out only. A real hospital makes its own kit: fedlens hospital request."
)


def provision(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Federation file, ending with .toml.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The lead's folder; named like the federation, beside the file."),
    ] = None,
    rotate: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Approve new keys of this hospital in place of the old ones."),
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Take this hospital out of the federation.")
    ] = None,
    rehearsal: Annotated[
        bool, typer.Option("--rehearsal", help="Make every hospital's kit here too, for trying things out.")
    ] = False,
    new: Annotated[
        bool, typer.Option("--new", help="Write a commented FILE to start from, and stop.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make the coordinator's and the lead's kit, and approve hospitals' requests.

    Run it again whenever a request has come: put NAME.request.zip into the folder's requests, and send what
    appears in approved back to the hospital. Kits made earlier stay as they are.
    """
    # Imported here, as by all commands, so that `fedlens --help` waits for nothing it does not need.
    from fedlens.deployment.federation import load_federation, new_federation
    from fedlens.deployment.provisioning import provision as run_provision
    from fedlens.deployment.rehearsal import rehearse

    if new:
        new_federation(file)
        text = f"{file} written\n\nNext: edit it, then: fedlens provision {file}"
        show(context, {"file": str(file)}, text)
        return
    federation = load_federation(file)
    folder = out or file.resolve().parent / federation.name
    make = rehearse if rehearsal else run_provision
    result = make(federation, folder, rotate=rotate or (), remove=remove or ())
    _show(context, federation, file, result, rehearsal=rehearsal)


def _show(
    context: typer.Context, federation: Federation, file: Path, result: Provisioned, *, rehearsal: bool
) -> None:
    states = _states(result)
    fingerprint = result.members.fingerprint()
    content = {
        "folder": str(result.folder),
        "federation": federation.name,
        "rehearsal": rehearsal,
        "members_fingerprint": fingerprint,
        "members_changed": result.changed,
        "hospitals": [{"name": name, "state": state, "key": key} for name, state, key in states],
        "left": [str(path) for path in result.left],
    }
    parts = [table(f"Federation {federation.name}", ["hospital", "state", "key"], states, text=3)]
    lines = [f"\nMembers: {fingerprint}", COMPARE]
    lines += [f"{near(path)} was left alone: {file} lists no such hospital." for path in result.left]
    if result.removed:
        lines.append(
            "Removed hospitals are turned away from the coordinator's next start: restart it if it runs."
        )
    lines += ["", *_next(result, rehearsal=rehearsal)]
    show(context, content, *parts, "\n".join(lines))


def _states(result: Provisioned) -> list[tuple[str, str, str]]:
    """Name, state and key fingerprint of every hospital."""
    from fedlens.deployment.members import key_fingerprint

    rows = []
    for name, key in result.members.hospitals.items():
        state = "approved now" if name in result.approved else "approved"
        rows.append((name, state, key_fingerprint(key)))
    rows += [(name, "waiting for its request", "") for name in result.waiting]
    rows += [(name, "removed", "") for name in result.removed if name not in result.waiting]
    return rows


def _next(result: Provisioned, *, rehearsal: bool) -> list[str]:
    """What is to be done now."""
    folder = near(result.folder)
    if rehearsal:
        return [
            _REHEARSED.format(folder=folder / "hospitals"),
            f"\nNext: fedlens coordinator start --kit {folder}/coordinator",
        ]
    lines = []
    if result.approved:
        names = ", ".join(f"{name}.approved.zip" for name in result.approved)
        lines.append(f"Next: send from {folder}/approved: {names}")
    if result.changed and len(result.members.hospitals) > len(result.approved):
        lines.append(f"Next: send {folder}/members.json to the other hospitals: fedlens hospital members")
    if result.waiting:
        lines.append(
            f"Next: give the federation file to {', '.join(result.waiting)}, put the request they make into "
            f"{folder}/requests, and run this again"
        )
    lines.append(f"Then: fedlens coordinator start --kit {folder}/coordinator")
    return lines


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: fedlens provision federation.toml --rehearsal")(provision)
