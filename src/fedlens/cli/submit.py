"""``fedlens submit``, ``resume`` and ``stop``: a study on a federation of machines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import fedlens
from fedlens.cli.output import JsonOption, near, show
from fedlens.cli.progress import Shown, shown
from fedlens.cli.round_line import round_line
from fedlens.errors import RoundError

if TYPE_CHECKING:
    from fedlens.deployment.session import Session

KitOption = Annotated[Path, typer.Option(metavar="DIR", help="The lead's kit.", envvar="FEDLENS_KIT")]
FollowOption = Annotated[
    bool, typer.Option("--follow", help="Stay until the study ends, then fetch its result.")
]
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="Study file.")]


def submit(
    context: typer.Context,
    file: FileArgument,
    kit: KitOption,
    follow: FollowOption = False,
    as_json: JsonOption = False,
) -> None:
    """Hand a study to the coordinator, which begins it with its hospitals."""
    study = fedlens.load_study(file)
    context.meta["resume"] = f"fedlens resume {file} --kit {kit} --follow (the study itself goes on)"
    with _session(kit) as session, shown() as progress:
        begun = session.submit(study, progress)
        progress.line(
            f"study {begun['study']}, digest {begun['digest'][:12]}, network {begun['fingerprint'][:12]}, "
            "is with the coordinator"
        )
        if follow:
            _follow(context, session, study, progress)
            return
    show(context, begun, f"Next: fedlens status {study.name} --kit {kit}")


def resume(
    context: typer.Context,
    file: FileArgument,
    kit: KitOption,
    follow: FollowOption = False,
    as_json: JsonOption = False,
) -> None:
    """Go on with a study that stopped; follow one that runs; fetch the result of one that has finished."""
    study = fedlens.load_study(file)
    context.meta["resume"] = f"fedlens resume {file} --kit {kit} --follow (the study itself goes on)"
    with _session(kit) as session, shown() as progress:
        state = session.ask("status", name=study.name)["state"]
        if state not in ("waiting", "running", "finished"):
            session.ask("resume", name=study.name)
            progress.line(f"study {study.name} goes on; it was {state}")
        if follow:
            _follow(context, session, study, progress)
            return
    show(context, {"study": study.name, "state": state}, f"Next: fedlens status {study.name} --kit {kit}")


def stop(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the study.")],
    kit: KitOption,
    as_json: JsonOption = False,
) -> None:
    """Stop a running study; finished rounds are kept."""
    with _session(kit) as session:
        session.ask("stop", name=name)
    show(context, {"study": name, "state": "stopped"}, f"Study {name} stops. Go on with: fedlens resume")


def _session(kit: Path) -> Session:
    from fedlens.deployment.kit import open_kit
    from fedlens.deployment.session import Session

    return Session(open_kit(kit, "lead"))


def _follow(context: typer.Context, session: Session, study: fedlens.Study, progress: Shown) -> None:
    from fedlens.coordinator.deciding import DECISION, advice_said
    from fedlens.deployment.session import collect_results
    from fedlens.federation_report import REPORT_NAME
    from fedlens.run_folder import run_folder

    def watch(event: dict[str, Any]) -> None:
        if event["event"] == "round":
            progress.line(round_line(event))
        elif event["event"] == "failed":
            progress.line(f"round {event['round']} failed: {event['reason']}")
        elif event["event"] == DECISION:
            progress.line(advice_said([event]))

    waited = ""

    def at(status: dict[str, Any]) -> None:
        nonlocal waited
        if status["state"] == "waiting" and status["reason"] not in ("", waited):
            waited = status["reason"]
            progress.line(f"waiting: {waited}")
        if status["step"]:
            progress(status["step"], status["done"], status["total"])
        for hospital, said in status["hospitals"].items():
            step, _, percent = said.rpartition(" ")[0].rpartition(" ")
            if step:
                progress(f"{hospital}: {step}", int(percent), 100)

    ended = session.follow(study.name, watch, at)
    if ended["state"] != "finished":
        raise RoundError(
            f"Study {study.name} {ended['state']}: {ended['reason']}", fix="Then: fedlens resume"
        )
    folder = run_folder(study)
    arm = collect_results(session, study, folder, progress)
    last = next(event for event in reversed(fedlens.run_status(arm)[0].events) if "evaluation" in event)
    figures = {key: last["evaluation"][key] for key in ("loss", "accuracy", "f1_macro", "auroc_macro")}
    show(
        context,
        {"folder": str(folder), "model": str(arm / "model"), "rounds": last["round"], "validation": figures},
        f"Study {study.name} finished after {last['round']} rounds: "
        f"validation accuracy {100 * figures['accuracy']:.1f} % over all hospitals\n"
        f"Network and history in {near(arm)}\nOpen {near(folder / REPORT_NAME)}",
    )


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog="Example: fedlens submit study.toml --kit federation/lead --follow")(submit)
    app.command(epilog="Example: fedlens resume study.toml --kit federation/lead --follow")(resume)
    app.command(epilog="Example: fedlens stop chest --kit federation/lead")(stop)
