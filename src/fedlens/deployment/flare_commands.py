"""FLARE's own provisioning, run as commands: an authority, requests, approvals and workspaces.

FLARE keeps records below the home folder; here that is a folder of ours, so the user's is left alone.
"""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

from fedlens.deployment.federation import Federation
from fedlens.deployment.kit import Kind, organisation
from fedlens.errors import DeploymentError
from fedlens.files import write_json

Item = TypeVar("Item")

_SECONDS = 120
_CA_DAYS = 7300
_TYPES: dict[Kind, Literal["client", "server", "admin"]] = {
    "hospital": "client",
    "coordinator": "server",
    "lead": "admin",
}


def make_authority(federation: Federation, folder: Path) -> None:
    """Make the federation's certificate authority: rootCA.pem, rootCA.key (0600), ca.json, profile.yaml."""
    profile = folder / "profile.yaml"
    # JSON is YAML, and needs no further library to be written.
    write_json(
        profile,
        {
            "name": federation.name,
            "scheme": "grpc",
            "connection_security": "mtls",
            "server": {
                "host": federation.coordinator,
                "fed_learn_port": federation.port,
                "admin_port": federation.port,
            },
        },
    )
    _flare(["cert", "init", "--profile", profile, "-o", folder, "--valid-days", _CA_DAYS], home=folder)


def authority_fingerprint(folder: Path) -> str:
    """FLARE's fingerprint of the authority's certificate, for :func:`build_workspace`.

    Raises:
        DeploymentError: The authority's folder is incomplete.
    """
    try:
        return str(json.loads((folder / "ca.json").read_bytes())["rootCA_fingerprint"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeploymentError(
            f"Cannot read the authority in {folder}: {error}.", fix="Put the folder back from a copy."
        ) from error


def make_tls_request(federation: Federation, kind: Kind, name: str, folder: Path) -> Path:
    """Make a TLS key (0600) in ``folder`` and a request that it be certified.

    Args:
        federation: The federation asked.
        kind: What the certificate is for.
        name: The hospital's, the coordinator's host, or the lead's.
        folder: Keeps the key, and FLARE's notes that belong to it.

    Returns:
        The request's zip file, which holds nothing secret.
    """
    participant: dict[str, Any] = {"name": name, "type": _TYPES[kind], "org": organisation(kind, name)}
    if kind == "coordinator":
        participant |= {"fed_learn_port": federation.port, "admin_port": federation.port}
    if kind == "lead":
        participant["role"] = "lead"
    description = folder / "participant.yaml"
    write_json(description, {"name": federation.name, "participants": [participant]})
    _flare(["cert", "request", "-p", description, "--out", folder, "--force"], home=folder)
    return folder / f"{name}.request.zip"


def approve_tls_request(request: Path, authority: Path, signed: Path, days: int) -> None:
    """Certify a request with the authority's key.

    Args:
        request: From :func:`make_tls_request`.
        authority: The authority's folder.
        signed: Where the certificate's zip file goes; an earlier one is replaced.
        days: How long it holds.
    """
    profile = authority / "profile.yaml"
    arguments: list[str | Path | int] = [
        "cert",
        "approve",
        request,
        "-c",
        authority,
        "--profile",
        profile,
        "--out",
        signed,
    ]
    _flare([*arguments, "--valid-days", days, "--force"], home=authority)


def build_workspace(signed: Path, request_folder: Path, fingerprint: str, out: Path) -> Path:
    """Build a FLARE workspace (startup/, local/, transfer/) out of a certificate and the key at home.

    Args:
        signed: From :func:`approve_tls_request`; FLARE wants its name to end with ``.signed.zip``.
        request_folder: Where :func:`make_tls_request` left the key.
        fingerprint: Of the authority, which the certificate has to be from.
        out: An empty folder to build in.

    Returns:
        The workspace, somewhere in ``out``.
    """
    arguments: list[str | Path | int] = ["package", signed, "--request-dir", request_folder]
    _flare([*arguments, "--fingerprint", fingerprint, "-w", out, "--force"], home=request_folder)
    found = [path.parent for path in out.glob("*/*/*/startup")]
    if len(found) != 1:
        raise DeploymentError(
            f"FLARE built {len(found)} workspaces in {out} where one was expected.",
            fix="Install the FLARE version that FedLens asks for: pip install --upgrade fedlens",
        )
    return found[0]


def at_once(action: Callable[[Item], None], items: Iterable[Item]) -> None:
    """Do the same for every item, several at a time: most of what FLARE's commands take is Python's start.

    Raises:
        DeploymentError: The first one of an item, once all of them ended.
    """
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(action, items))


def _flare(arguments: Sequence[str | Path | int], *, home: Path) -> dict[str, Any]:
    """Run one ``nvflare`` command.

    Raises:
        DeploymentError: In FLARE's words, it refused, failed or did not end.
    """
    name = " ".join(str(part) for part in arguments[:2] if not isinstance(part, Path))
    # PYTHONUSERBASE: with another home, Python would look for a user's own packages there.
    environment = {**os.environ, "HOME": str(home.absolute()), "PYTHONUSERBASE": site.getuserbase()}
    command = [sys.executable, "-m", "nvflare.cli", "--format", "json", *(str(part) for part in arguments)]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeploymentError(
            f"The command nvflare {name} did not run: {error}.", fix="Try again."
        ) from error
    try:
        reply = json.loads(done.stdout)
    except ValueError:
        reply = {}
    if done.returncode == 0 and reply.get("status") == "ok":
        data: dict[str, Any] = reply.get("data", {})
        return data
    # Without an answer of its own, FLARE's last words say best what happened.
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    raise DeploymentError(
        f"FLARE refuses ({name}): {str(reply.get('message') or last).rstrip('.')}.",
        why=str(reply.get("detail") or ""),
        fix=str(reply.get("hint") or ""),
    )
