"""A kit: the folder from which a hospital, the coordinator or the lead takes part.

::

    KIT/kit.json         what it is, whose, and where the coordinator is; written last
    KIT/flare/           FLARE's workspace: startup/ (certificate, TLS key), local/, transfer/, its logs
    KIT/identity.key     the signing key, 32 bytes, mode 0600      (hospital, coordinator)
    KIT/members.json     whose keys are trusted                    (hospital, coordinator)
    KIT/policy.toml      what the hospital agrees to               (hospital)
    KIT/studies/         run folders; at a hospital, what it keeps of each study
    KIT/segment          how often sealed rounds were begun        (coordinator)
    KIT/jobs/            FLARE's job store and snapshots           (coordinator)
    KIT/run/             of running services, e.g. service.sock

The folder has mode 0700. It may be moved: nothing that a service reads at its start names the old place.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from fedlens.deployment.members import MEMBERS_NAME, Members, load_members
from fedlens.errors import DeploymentError
from fedlens.files import write_bytes, write_json
from fedlens.protocol.roster import COORDINATOR, Identity

Kind = Literal["hospital", "coordinator", "lead"]

KIT_NAME = "kit.json"
KEY_NAME = "identity.key"
FLARE_NAME = "flare"
POLICY_NAME = "policy.toml"

_MADE_BY = {
    "hospital": "Make one with: fedlens hospital request, then fedlens hospital install.",
    "coordinator": "The lead makes it with: fedlens provision federation.toml",
    "lead": "The lead makes it with: fedlens provision federation.toml",
}
_KEY_BYTES = 32
_OTHERS = 0o077


@dataclass(frozen=True)
class Kit:
    """An installed kit.

    Attributes:
        folder: Where it lies.
        kind: Whose it is.
        name: The hospital's name, ``coordinator``, or the lead's user name.
        federation: Its federation's name.
        host: Where the coordinator is reached.
        port: The coordinator's port.
    """

    folder: Path
    kind: Kind
    name: str
    federation: str
    host: str
    port: int

    @property
    def flare(self) -> Path:
        """FLARE's workspace."""
        return self.folder / FLARE_NAME

    @property
    def organisation(self) -> str:
        """The organisation in the kit's certificate, which FLARE wants to be told at the start."""
        return organisation(self.kind, self.name)

    @property
    def policy(self) -> Path:
        """What the hospital agrees to."""
        return self.folder / POLICY_NAME

    @property
    def studies(self) -> Path:
        """The coordinator's run folders; at a hospital, what it keeps of each study."""
        return self.folder / "studies"

    @property
    def socket(self) -> Path:
        """Where the kit's running service listens for commands of this machine."""
        return self.folder / "run" / "service.sock"

    def identity(self) -> Identity:
        """The kit's signing identity.

        Raises:
            DeploymentError: The key file is missing, damaged, or open to other users.
        """
        return read_identity(self.folder / KEY_NAME, self.name)

    def members(self) -> Members:
        """Whose keys this kit trusts.

        Raises:
            DeploymentError: Missing or damaged.
        """
        return load_members(self.folder / MEMBERS_NAME)


def open_kit(folder: Path, kind: Kind) -> Kit:
    """An installed kit, checked.

    Args:
        folder: Of the kit.
        kind: What it has to be.

    Raises:
        DeploymentError: No kit, of another kind, incomplete, or with a key that other users may read.
    """
    kit = read_kit(folder)
    if kit.kind != kind:
        raise DeploymentError(f"{folder} is the kit of a {kit.kind}, not of a {kind}.", fix=_MADE_BY[kind])
    needed = [kit.flare / "startup", kit.flare / "local"]
    if kind != "lead":
        needed += [folder / KEY_NAME, folder / MEMBERS_NAME]
    for path in needed:
        if not path.exists():
            raise DeploymentError(f"The kit {folder} lacks {path.relative_to(folder)}.", fix=_MADE_BY[kind])
    for key in [*(kit.flare / "startup").glob("*.key"), *([] if kind == "lead" else [folder / KEY_NAME])]:
        refuse_open_key(key)
    return kit


def read_kit(folder: Path) -> Kit:
    """What ``kit.json`` says; nothing else is checked.

    Raises:
        DeploymentError: Missing or damaged.
    """
    path = folder / KIT_NAME
    try:
        content = json.loads(path.read_bytes())
        if content["kind"] not in get_args(Kind):
            raise ValueError(f"unknown kind {content['kind']!r}")
        return Kit(
            folder=folder,
            kind=content["kind"],
            name=str(content["name"]),
            federation=str(content["federation"]),
            host=str(content["host"]),
            port=int(content["port"]),
        )
    except FileNotFoundError as error:
        raise DeploymentError(
            f"{folder} is no kit: it has no {KIT_NAME}.",
            why="A hospital's is made by `fedlens hospital request` and `install`, the coordinator's and the "
            "lead's by `fedlens provision`.",
            fix="Give the folder that one of these made.",
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeploymentError(
            f"Cannot read {path}: {error}.", fix="Put the file back from a copy of the kit."
        ) from error


def write_kit(kit: Kit) -> None:
    """Write ``kit.json``, which makes the folder a kit."""
    write_json(
        kit.folder / KIT_NAME,
        {
            "kind": kit.kind,
            "name": kit.name,
            "federation": kit.federation,
            "host": kit.host,
            "port": kit.port,
        },
    )


def read_identity(path: Path, name: str) -> Identity:
    """The identity in a key file; it is never made here.

    Raises:
        DeploymentError: The file is missing, damaged, or open to other users.
    """
    refuse_open_key(path)
    secret = path.read_bytes()
    if len(secret) != _KEY_BYTES:
        raise DeploymentError(
            f"{path} holds {len(secret)} bytes, not a key of {_KEY_BYTES}.",
            fix="Put the file back from a copy, or make new keys with --rotate.",
        )
    return Identity.from_bytes(name, secret)


def new_identity(path: Path, name: str) -> Identity:
    """Make an identity and write its key, mode 0600; an existing key is read instead."""
    if path.exists():
        return read_identity(path, name)
    identity = Identity.generate(name)
    write_bytes(path, identity.secret(), mode=0o600)
    return identity


def refuse_open_key(path: Path) -> None:
    """Refuse a private key that is missing or that other users of the machine may read.

    Raises:
        DeploymentError: Names the command that closes it.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise DeploymentError(
            f"Cannot read the key {path}: {error.strerror}.", fix="Put the file back from a copy."
        ) from error
    if mode & _OTHERS:
        raise DeploymentError(
            f"Other users of this machine may use the key {path} (mode {mode & 0o777:04o}).",
            why="Whoever holds it can speak in its owner's name.",
            fix=f"If nobody has read it: chmod 600 {path}. Else make new keys with --rotate.",
        )


def private_folder(path: Path) -> Path:
    """Make a folder that only its owner may enter, or close it to others."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_uid == os.getuid():
        path.chmod(0o700)
    return path


def place_workspace(built: Path, kit_folder: Path) -> None:
    """Put a new FLARE workspace into a kit that has none yet, closed to other users."""
    place = kit_folder / FLARE_NAME
    shutil.rmtree(place, ignore_errors=True)
    shutil.move(built, place)
    for part in (place, *(path for path in place.iterdir() if path.is_dir())):
        private_folder(part)


def organisation(kind: Kind, name: str) -> str:
    """The organisation a certificate names: the lead and the coordinator share one, a hospital has its own.

    FLARE's rights are given by organisation, so the lead may operate the coordinator and no hospital.
    """
    return f"hospital_{name.replace('-', '_')}" if kind == "hospital" else COORDINATOR
