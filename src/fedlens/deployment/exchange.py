"""The two files that travel: a hospital's request, and the lead's approval of it. Neither is secret.

::

    NAME.request.zip                         NAME.approved.zip
      request.json    federation, name,        approval.json   federation, name, host, port, authority,
                      key, digest of FLARE's                   digests of the other two
      request.sig     by the hospital          approval.sig    by the coordinator
      flare.zip       FLARE's request          flare.zip       FLARE's certificate
                                               members.json    whose keys are trusted

The hospital's signature shows that it holds the key it asks for and binds FLARE's request to it. The
coordinator's binds everything to the key that :meth:`Members.fingerprint` covers, so comparing that one
fingerprint on the phone vouches for the whole file.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlens.deployment.envelope import content_digest
from fedlens.deployment.kit import organisation
from fedlens.deployment.members import MEMBERS_NAME, Members
from fedlens.errors import DeploymentError, ProtocolError
from fedlens.protocol.roster import COORDINATOR, Identity, Roster

FLARE_NAME = "flare.zip"
_FORMAT = 1
_MOST_BYTES = 1 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Request:
    """A hospital's request, checked.

    Attributes:
        federation: Name of the federation asked.
        name: The hospital's.
        key: Its public signing key.
        flare: FLARE's request, a zip file.
    """

    federation: str
    name: str
    key: bytes
    flare: bytes


@dataclass(frozen=True)
class Approval:
    """An approval, checked against the coordinator's key that it brings along.

    Attributes:
        name: The hospital's.
        host: Where the coordinator is reached.
        port: The coordinator's port.
        authority: Fingerprint of the certificate authority.
        members: Whose keys are trusted.
        flare: FLARE's certificate, a zip file.
    """

    name: str
    host: str
    port: int
    authority: str
    members: Members
    flare: bytes


def encode_request(federation: str, identity: Identity, flare: bytes) -> bytes:
    """The content of a ``NAME.request.zip``."""
    content = _json(
        {
            "format": _FORMAT,
            "federation": federation,
            "name": identity.name,
            "key": identity.public().hex(),
            "flare": content_digest(flare),
        }
    )
    return _zip(
        {"request.json": content, "request.sig": identity.sign("request", content), FLARE_NAME: flare}
    )


def read_request(path: Path) -> Request:
    """Read a ``NAME.request.zip``.

    Raises:
        DeploymentError: Damaged, altered, not signed by the key it asks for, or what it would have FLARE
            certify is not a hospital of that name.
    """
    fix = "Ask the hospital to send its request again, or to make a new one: fedlens hospital request."
    entries = _unzip(path, ("request.json", "request.sig", FLARE_NAME), "request", fix)
    try:
        content = _parsed(entries["request.json"])
        request = Request(
            federation=str(content["federation"]),
            name=str(content["name"]),
            key=bytes.fromhex(content["key"]),
            flare=entries[FLARE_NAME],
        )
        if content["flare"] != content_digest(request.flare):
            raise ValueError("FLARE's part is not the one it was signed with")
        # Any key will do as the coordinator's: only the hospital's own signature is looked at.
        Roster.draft({request.name: request.key}, request.key).verify(
            request.name, "request", entries["request.json"], entries["request.sig"]
        )
        _check_flare(request)
    except (ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise DeploymentError(f"{path} cannot be used: {error}.", fix=fix) from error
    except ProtocolError as error:
        raise DeploymentError(
            f"{path} is not signed by the key it asks for.", why="It was altered on its way.", fix=fix
        ) from error
    return request


def encode_approval(identity: Identity, approval: Approval) -> bytes:
    """The content of a ``NAME.approved.zip``, signed by the coordinator's ``identity``."""
    entries = {MEMBERS_NAME: approval.members.to_json().encode(), FLARE_NAME: approval.flare}
    content = _json(
        {
            "format": _FORMAT,
            "federation": approval.members.federation,
            "name": approval.name,
            "host": approval.host,
            "port": approval.port,
            "authority": approval.authority,
            "files": {entry: content_digest(data) for entry, data in entries.items()},
        }
    )
    signature = identity.sign("approval", content)
    return _zip({"approval.json": content, "approval.sig": signature, **entries})


def read_approval(path: Path) -> Approval:
    """Read a ``NAME.approved.zip``.

    The coordinator's key is taken from the file itself; whoever installs it compares the fingerprint of
    its members, which covers that key.

    Raises:
        DeploymentError: Damaged, altered, or not signed by its coordinator.
    """
    fix = f"Ask the lead to send {path.name} again."
    entries = _unzip(path, ("approval.json", "approval.sig", MEMBERS_NAME, FLARE_NAME), "approval", fix)
    members = Members.from_json(entries[MEMBERS_NAME], f"{MEMBERS_NAME} in {path}")
    try:
        content = _parsed(entries["approval.json"])
        roster = members.roster([str(content["name"])])
        roster.verify(COORDINATOR, "approval", entries["approval.json"], entries["approval.sig"])
        if content["federation"] != members.federation:
            raise ValueError("its members are of another federation")
        for entry in (MEMBERS_NAME, FLARE_NAME):
            if content["files"][entry] != content_digest(entries[entry]):
                raise ValueError(f"{entry} is not the one it was signed with")
        return Approval(
            name=str(content["name"]),
            host=str(content["host"]),
            port=int(content["port"]),
            authority=str(content["authority"]),
            members=members,
            flare=entries[FLARE_NAME],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DeploymentError(f"{path} cannot be used: {error}.", fix=fix) from error
    except ProtocolError as error:
        raise DeploymentError(
            f"{path} is not signed by its coordinator.", why="It was altered on its way.", fix=fix
        ) from error


def _check_flare(request: Request) -> None:
    """Refuse a request that would have FLARE certify anything but this hospital.

    FLARE certifies what its part asks for: the lead or another server just as well.
    """
    with zipfile.ZipFile(io.BytesIO(request.flare)) as archive:
        if archive.getinfo("request.json").file_size > _MOST_BYTES:
            raise ValueError("FLARE's part is too large")
        content = _parsed(archive.read("request.json"))
    wanted = {
        "project": request.federation,
        "name": request.name,
        "kind": "site",
        "cert_type": "client",
        "org": organisation("hospital", request.name),
    }
    for fact, value in wanted.items():
        if content.get(fact) != value:
            raise ValueError(f"it asks FLARE to certify {fact} {content.get(fact)!r}, not {value!r}")


def _zip(entries: Mapping[str, bytes]) -> bytes:
    """A zip file that is the same for the same entries."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
    return buffer.getvalue()


def _unzip(path: Path, names: tuple[str, ...], kind: str, fix: str) -> dict[str, bytes]:
    """Exactly these entries of a zip file, none of them large.

    Raises:
        DeploymentError: Missing, damaged, or of other entries.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = archive.infolist()
            if sorted(entry.filename for entry in found) != sorted(names):
                raise ValueError("it holds other files than it should")
            if any(entry.file_size > _MOST_BYTES for entry in found):
                raise ValueError("a file in it is too large")
            return {name: archive.read(name) for name in names}
    except OSError as error:
        raise DeploymentError(f"Cannot read the {kind} {path}: {error.strerror}.", fix=fix) from error
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise DeploymentError(f"{path} is no {kind}: {error}.", fix=fix) from error


def _parsed(text: bytes) -> dict[str, Any]:
    content = json.loads(text)
    if not isinstance(content, dict):
        raise TypeError("it does not hold what it should")
    return content


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, indent=2).encode() + b"\n"
