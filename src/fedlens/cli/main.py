"""The ``fedlens`` command."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import fedlens
from fedlens.cli import (
    account,
    card,
    compare,
    coordinator,
    data,
    demo,
    explain,
    export,
    hospital,
    pacs,
    predict,
    provision,
    report,
    run,
    status,
    study,
    submit,
    view,
)
from fedlens.cli.output import show_error
from fedlens.errors import FedLensError

_EXIT_CODES = (
    "Exit codes: 0 done, 1 other failure, 2 study file or option, 3 images, 4 network or checkpoint, "
    "5 federated round, 6 run folder, 7 explanation, 8 deployment, 9 PACS, 130 interrupted."
)


class _Commands(TyperGroup):
    """Turns errors raised on purpose into a message and an exit code; others keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except FedLensError as error:
            show_error(ctx, error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            hint = ctx.meta.get("resume", "the same command")
            typer.echo(f"\nInterrupted; nothing is half-written. Go on with: {hint}", err=True)
            raise typer.Exit(130) from error


app = typer.Typer(
    cls=_Commands,
    name="fedlens",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train one diagnostic image classifier across hospitals that may not share images, "
    "and see why it decides.",
    epilog=f"Start with: fedlens demo. {_EXIT_CODES}",
)
for group in (data, study, hospital, coordinator, pacs, account):
    app.add_typer(group.app)
for module in (run, compare, explain, predict, view, export, status, report, card, demo, provision, submit):
    module.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fedlens {fedlens.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the ``fedlens`` script."""
    app()
