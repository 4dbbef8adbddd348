"""``fedlens account``: who may log in to the viewer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fedlens.cli.output import JsonOption, show

app = typer.Typer(name="account", no_args_is_help=True, help="Say who may log in to the viewer.")

File = Annotated[Path, typer.Argument(metavar="FILE", help="Accounts, as given to fedlens view --accounts.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Letters without accents, digits and . _ @ -.")]


@app.command(epilog="Example: fedlens account add accounts.json m.weber")
def add(
    context: typer.Context,
    file: File,
    name: Name,
    replace: Annotated[
        bool, typer.Option("--replace", help="Give an account that is there a new password.")
    ] = False,
    password_stdin: Annotated[
        bool,
        typer.Option("--password-stdin", help="Read the password from standard input and do not ask for it."),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Make an account. The password is asked for twice; it has 12 characters or more.

    FILE is made where it is missing, and only you can read it. It holds no password, only what checks one.
    """
    from fedlens.viewer.accounts import Accounts

    accounts = Accounts(file)
    if password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt="The same again", err=True)
    accounts.add(name, password, replace=replace)
    show(context, {"file": str(file), "account": name}, f"{name} may log in with {file}.")


@app.command(epilog="Example: fedlens account remove accounts.json m.weber")
def remove(context: typer.Context, file: File, name: Name, json: JsonOption = False) -> None:
    """Remove an account. Whoever is logged in with it is logged out at once."""
    from fedlens.viewer.accounts import Accounts

    Accounts(file).remove(name)
    show(context, {"file": str(file), "removed": name}, f"{name} may no longer log in with {file}.")


@app.command("list", epilog="Example: fedlens account list accounts.json")
def list_accounts(context: typer.Context, file: File, json: JsonOption = False) -> None:
    """Name all accounts."""
    from fedlens.viewer.accounts import Accounts

    names = Accounts(file).names()
    show(context, {"file": str(file), "accounts": list(names)}, *names)
