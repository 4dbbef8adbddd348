"""``fedlens status``: where a run stands."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

import fedlens
from fedlens.cli.maps import maps_at_home, maps_by_hospital, maps_by_round
from fedlens.cli.output import JsonOption, show, table
from fedlens.errors import SettingsError
from fedlens.home_explanations import STRAYING_NAME, read_homes
from fedlens.reports.absence import absences, left_out
from fedlens.status import status_of

_ROUNDS = 10


def status(
    context: typer.Context,
    run: Annotated[
        str,
        typer.Argument(
            metavar="[RUN]",
            help="Output folder of a run or comparison; or, with --kit, the name of a coordinator's study.",
        ),
    ] = "",
    kit: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The lead's kit: ask its coordinator. A hospital's: its own explanations against all.",
            envvar="FEDLENS_KIT",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show rounds done, the last rounds' figures, how explanations moved, and each hospital's own."""
    if kit is not None and not Path(run or ".").joinpath("study.json").exists():
        from fedlens.deployment.kit import read_kit

        if read_kit(kit).kind == "hospital":
            _home(context, kit)
        else:
            _remote(context, kit, run)
        return
    if not run:
        raise SettingsError("No run is given.", fix="Give its output folder, or --kit for a coordinator's.")
    found = fedlens.run_status(Path(run))
    parts: list[str | Table] = []
    for one in found:
        parts += _told(one)
    show(context, {"runs": [one.as_dict() for one in found]}, *parts)


def _remote(context: typer.Context, kit: Path, name: str) -> None:
    """A study at the coordinator, or without a name all of them."""
    from fedlens.deployment.kit import open_kit
    from fedlens.deployment.session import Session

    with Session(open_kit(kit, "lead")) as session:
        if not name:
            studies = session.ask("studies")["studies"]
            rows = [[study["study"], study["state"]] for study in studies]
            show(context, {"studies": studies}, table("Studies", ["study", "state"], rows, text=2))
            return
        said = session.ask("status", name=name)
    one = status_of(Path(name), said["events"])
    one = dataclasses.replace(one, state=said["state"], reason=said["reason"] or one.reason)
    at = ", ".join(f"{hospital}: {step}" for hospital, step in said["hospitals"].items())
    doing = [f"at: {said['step']}" + (f" ({at})" if at else "")] if said["state"] == "running" else []
    begun = one.rounds > 0
    standing = _told(one) if begun else [f"{name}: {one.state}" + (f" ({one.reason})" if one.reason else "")]
    show(context, {**one.as_dict(), **said, "folder": name}, *standing, *doing)


def _home(context: typer.Context, kit: Path) -> None:
    """What a hospital has measured of its own maps, held against the federations' of its studies."""
    homes = read_homes(kit)
    parts: list[str | Table] = []
    for name, home in homes.items():
        parts += [f"Study {name}: images named in {kit / 'studies' / name / STRAYING_NAME}"]
        parts += [*maps_at_home(home, _ROUNDS), ""]
    show(context, {"studies": homes}, *(parts or ["This hospital has measured no maps."]))


def _told(one: fedlens.RunStatus) -> list[str | Table]:
    ended = f" ({one.reason})" if one.reason else ""
    parts: list[str | Table] = [
        f"{one.folder}: {one.state}{ended}, {len(one.events)} of {one.rounds} rounds, {one.strategy}, "
        + _travel(one)
    ]
    if one.events:
        parts += ["", _rounds(one), "", _hospitals(one), ""]
        parts += maps_by_round(one.events, one.hospitals, _ROUNDS)
        parts += maps_by_hospital(one.events, one.homes)
    parts += [f"Round {event['round']} came to nothing: {_why(event)}" for event in one.failures]
    return parts


def _why(failure: dict[str, Any]) -> str:
    """The reason of a failed round, with every hospital that did not answer."""
    return " ".join([failure["reason"], *(f"{away.hospital}: {away.reason}" for away in absences(failure))])


def _travel(status: fedlens.RunStatus) -> str:
    if status.sealed:
        return "sealed: hospitals keep their own figures at home"
    return "updates in the clear" if len(status.hospitals) > 1 else "all in one place"


def _rounds(status: fedlens.RunStatus) -> Table:
    rows = []
    for event in status.events[-_ROUNDS:]:
        measured = event.get("evaluation", {})
        held_out = [event[step] for step in ("evaluation", "explanation") if step in event]
        seconds = sum(event["seconds"].values()) + sum(step.get("seconds", 0) for step in held_out)
        rows.append(
            [
                event["round"],
                f"{len(event.get('hospitals', {}))} of {len(event['participants'])}",
                _figure(event.get("loss")),
                _figure(event.get("accuracy")),
                _figure(measured.get("loss")),
                _figure(measured.get("accuracy")),
                f"{seconds:.1f}",
                _away(event, status.hospitals),
            ]
        )
    columns = ["round", "hospitals", "loss", "accuracy", "validation loss", "accuracy", "seconds", "away"]
    shown = table(f"Last {len(rows)} rounds, training and validation", columns, rows, text=0)
    shown.columns[-1].justify, shown.columns[-1].no_wrap = "left", False
    return shown


def _away(event: dict[str, Any], roster: Sequence[str]) -> str:
    """Whose numbers are not in a round; its evaluation asks all hospitals."""
    away = {name: name for name in left_out(event, event["participants"])}
    for step, said in (("evaluation", "validation"), ("explanation", "explanation")):
        names = left_out(event[step], roster) if step in event else ()
        away |= {name: f"{name} ({said})" for name in names if name not in away}
    return ", ".join(away.values())


def _hospitals(status: fedlens.RunStatus) -> Table:
    last = status.last or {}
    measured = (status.evaluated or {}).get("evaluation", {})
    rows = []
    for name in status.hospitals:
        trained, tested = last.get("hospitals", {}).get(name, {}), measured.get("hospitals", {}).get(name, {})
        trouble = last.get("refused", {}).get(name) or last.get("missing", {}).get(name) or ""
        rows.append(
            [
                name,
                trained.get("images", "-"),
                _figure(trained.get("loss")),
                _figure(tested.get("loss")),
                _figure(tested.get("accuracy")),
                f"{trained['bytes_up'] / 1e6:.2f}" if "bytes_up" in trained else "-",
                trouble,
            ]
        )
    columns = ["hospital", "images", "training loss", "validation loss", "accuracy", "MB up", "trouble"]
    return table("Hospitals, last round", columns, rows)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: fedlens status runs/chest")(status)
