"""The lead's side: an authority, kits for coordinator and lead, and approvals of hospitals' requests.

::

    FOLDER/ca/                        mode 0700: whoever reads it can let anybody in
    FOLDER/ca/NAME/                   what was approved: request.zip, and FLARE's certificate flare.zip
    FOLDER/coordinator/, FOLDER/lead/ kits
    FOLDER/requests/                  hospitals' NAME.request.zip, put here by the lead
    FOLDER/approved/                  NAME.approved.zip, to be sent to the hospitals
    FOLDER/members.json               to be sent to every hospital whenever it changes

The lead runs the coordinator, so its keys are made here. A hospital's are made at the hospital.
:func:`provision` runs as often as one likes and does what is left to do.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from fedlens.deployment.exchange import Approval, Request, encode_approval, read_request
from fedlens.deployment.federation import Federation
from fedlens.deployment.flare_commands import (
    approve_tls_request,
    at_once,
    authority_fingerprint,
    build_workspace,
    make_authority,
    make_tls_request,
)
from fedlens.deployment.flare_config import write_coordinator_config
from fedlens.deployment.kit import (
    KEY_NAME,
    KIT_NAME,
    Kind,
    Kit,
    new_identity,
    place_workspace,
    private_folder,
    read_kit,
    write_kit,
)
from fedlens.deployment.members import MEMBERS_NAME, Members, save_members
from fedlens.errors import DeploymentError
from fedlens.files import write_bytes, write_json
from fedlens.protocol.roster import COORDINATOR

REQUEST_SUFFIX = ".request.zip"
APPROVED_SUFFIX = ".approved.zip"
_DISABLED_NAME = "disabled_clients.json"


@dataclass(frozen=True)
class Provisioned:
    """How a federation stands after :func:`provision`.

    Attributes:
        folder: The lead's folder.
        members: Whose keys are trusted now.
        waiting: Listed hospitals whose request has not come.
        approved: Hospitals approved by this call, rotated ones included.
        removed: Hospitals the coordinator turns away.
        left: Request files left alone, since the federation file lists no such hospital.
        changed: Whether members.json is another than before, so that every hospital needs it.
    """

    folder: Path
    members: Members
    waiting: tuple[str, ...]
    approved: tuple[str, ...]
    removed: tuple[str, ...]
    left: tuple[Path, ...]
    changed: bool


def provision(
    federation: Federation, folder: Path, *, rotate: Collection[str] = (), remove: Collection[str] = ()
) -> Provisioned:
    """Make what is missing in the lead's folder, and approve the requests that lie in it.

    Either every request is approved or none: one that is refused stops the call before any is.

    Args:
        federation: The federation file's content.
        folder: The lead's; made at first.
        rotate: Approved hospitals whose new request, with new keys, is to replace the old.
        remove: Approved hospitals to be taken out. The coordinator turns them away from its next start.

    Raises:
        DeploymentError: The folder holds something else or another federation; a request is damaged or
            asks for a name that was approved with other keys; a hospital is approved and no longer listed,
            or to be removed and still listed; FLARE refuses.
    """
    _check_folder(federation, folder)
    authority = private_folder(folder / "ca")
    if not (authority / "rootCA.key").exists():
        make_authority(federation, authority)
    own: tuple[Kind, ...] = ("coordinator", "lead")
    at_once(lambda kind: _make_kit(federation, authority, folder / kind, kind), own)
    (folder / "requests").mkdir(exist_ok=True)

    coordinator = read_kit(folder / COORDINATOR)
    before = coordinator.members()
    _check_names(federation, before, rotate, remove)
    kept = {name: key for name, key in before.hospitals.items() if name not in remove}
    requests, left = _requests(federation, folder, kept, rotate)
    keys = {**kept, **{request.name: request.key for request in requests}}
    members = replace(before, hospitals={name: keys[name] for name in federation.hospitals if name in keys})
    # Read as a hospital will read it: two hospitals with one key are refused here, not there.
    members = Members.from_json(members.to_json(), "The new members.json")
    at_once(lambda request: _approve(federation, authority, request), requests)
    for name in remove:
        # Listed again one day, it has to ask again.
        (folder / "requests" / f"{name}{REQUEST_SUFFIX}").unlink(missing_ok=True)
    removed = _turn_away(coordinator, members, remove)
    for path in (coordinator.folder / MEMBERS_NAME, folder / MEMBERS_NAME):
        save_members(path, members)
    _write_approvals(coordinator, authority, folder / "approved", members)
    return Provisioned(
        folder=folder,
        members=members,
        waiting=tuple(name for name in federation.hospitals if name not in members.hospitals),
        approved=tuple(request.name for request in requests),
        removed=removed,
        left=left,
        changed=members.fingerprint() != before.fingerprint(),
    )


def _check_folder(federation: Federation, folder: Path) -> None:
    """Refuse a folder that holds something else, or kits with other facts than the federation file's."""
    if (
        folder.exists()
        and not (folder / "ca").is_dir()
        and not (folder.is_dir() and not any(folder.iterdir()))
    ):
        raise DeploymentError(
            f"{folder} exists already and holds no federation.", fix="Choose another folder with --out."
        )
    wanted = {
        COORDINATOR: (federation.name, federation.coordinator, federation.port, COORDINATOR),
        "lead": (federation.name, federation.coordinator, federation.port, federation.lead),
    }
    for name, facts in wanted.items():
        if (folder / name / KIT_NAME).exists():
            kit = read_kit(folder / name)
            if (kit.federation, kit.host, kit.port, kit.name) != facts:
                raise DeploymentError(
                    f"{folder} was made for federation {kit.federation} at {kit.host}:{kit.port} with "
                    f"{kit.name}, and the federation file says otherwise.",
                    why="Name, coordinator, port and lead are part of every kit and certificate.",
                    fix="Put them back in the federation file, or provision anew into another folder.",
                )


def _make_kit(federation: Federation, authority: Path, folder: Path, kind: Kind) -> None:
    """The coordinator's or the lead's kit, keys included; kit.json, which ends it, is written last."""
    if (folder / KIT_NAME).exists():
        return
    private_folder(folder)
    host = federation.coordinator
    name, tls_name = (COORDINATOR, host) if kind == "coordinator" else (federation.lead, federation.lead)
    with tempfile.TemporaryDirectory(dir=authority, prefix=f".{kind}-") as work:
        request_folder = Path(work) / "request"
        request_folder.mkdir()
        request = make_tls_request(federation, kind, tls_name, request_folder)
        signed = Path(work) / f"{kind}.signed.zip"
        approve_tls_request(request, authority, signed, federation.valid_days)
        fingerprint = authority_fingerprint(authority)
        place_workspace(build_workspace(signed, request_folder, fingerprint, Path(work) / "built"), folder)
    kit = Kit(folder, kind, name, federation.name, host, federation.port)
    if kind == "coordinator":
        identity = new_identity(folder / KEY_NAME, COORDINATOR)
        if not (folder / MEMBERS_NAME).exists():
            save_members(folder / MEMBERS_NAME, Members(federation.name, identity.public(), {}))
        write_coordinator_config(folder)
        for place in ("studies", "jobs"):
            (folder / place).mkdir(exist_ok=True)
    write_kit(kit)


def _check_names(
    federation: Federation, members: Members, rotate: Collection[str], remove: Collection[str]
) -> None:
    """Refuse to rotate or remove strangers, and members that the federation file has lost or kept."""
    for name in (*rotate, *remove):
        members.key(name)
    if set(rotate) & set(remove):
        raise DeploymentError("A hospital is either rotated or removed.", fix="Name it once.")
    listed = [name for name in remove if name in federation.hospitals]
    if listed:
        raise DeploymentError(
            f"The federation file still lists {', '.join(listed)}.",
            why="A listed hospital is approved again as soon as its request lies in the folder.",
            fix="Take it out of the list there, then run this again.",
        )
    lost = [name for name in members.hospitals if name not in federation.hospitals and name not in remove]
    if lost:
        raise DeploymentError(
            f"The federation file no longer lists {', '.join(lost)}, approved earlier.",
            fix=f"Put it back into the list, or remove it: --remove {' --remove '.join(lost)}",
        )


def _requests(
    federation: Federation, folder: Path, kept: dict[str, bytes], rotate: Collection[str]
) -> tuple[list[Request], tuple[Path, ...]]:
    """Requests to be approved now, all of them checked, and the files that are left alone."""
    requests, left = [], []
    for path in sorted((folder / "requests").glob(f"*{REQUEST_SUFFIX}")):
        name = path.name.removesuffix(REQUEST_SUFFIX)
        if name not in federation.hospitals:
            left.append(path)
            continue
        request = read_request(path)
        if (request.name, request.federation) != (name, federation.name):
            raise DeploymentError(
                f"{path} is the request of {request.name} in federation {request.federation}.",
                fix=f"Ask {name} for its own, made from this federation file.",
            )
        approved = folder / "ca" / name / "request.zip"
        known = name in kept and kept[name] == request.key and approved.read_bytes() == request.flare
        if name in kept and not known and name not in rotate:
            raise DeploymentError(
                f"{path} is a second request of {name}, with other keys than those approved.",
                why="Somebody else may have made it.",
                fix="Compare the key's fingerprint with the hospital on the phone. If it wants new keys: "
                f"--rotate {name}",
            )
        if not known:
            requests.append(request)
    asking = {request.name for request in requests}
    for name in rotate:
        if name not in asking:
            raise DeploymentError(
                f"No request of {name} with new keys lies in {folder / 'requests'}.",
                fix=f"Have it run: fedlens hospital request {name} FILE --kit KIT --rotate",
            )
    return requests, tuple(left)


def _approve(federation: Federation, authority: Path, request: Request) -> None:
    """Have FLARE certify a request; what was approved is kept, so that a second one is told apart."""
    kept = private_folder(authority / request.name)
    write_bytes(kept / "request.zip", request.flare)
    approve_tls_request(kept / "request.zip", authority, kept / "flare.zip", federation.valid_days)


def _turn_away(coordinator: Kit, members: Members, remove: Collection[str]) -> tuple[str, ...]:
    """Names that FLARE's server turns away: those removed now or earlier and not approved again since."""
    path = coordinator.flare / _DISABLED_NAME
    earlier = json.loads(path.read_bytes())["disabled_clients"] if path.exists() else []
    names = sorted({*earlier, *remove} - set(members.hospitals))
    if names != earlier:
        write_json(path, {"disabled_clients": names})
    return tuple(names)


def _write_approvals(coordinator: Kit, authority: Path, folder: Path, members: Members) -> None:
    """One approval for each member, all with the members as they are now; others are taken away."""
    folder.mkdir(exist_ok=True)
    for path in folder.glob(f"*{APPROVED_SUFFIX}"):
        if path.name.removesuffix(APPROVED_SUFFIX) not in members.hospitals:
            path.unlink()
    identity = coordinator.identity()
    fingerprint = authority_fingerprint(authority)
    for name in members.hospitals:
        certificate = (authority / name / "flare.zip").read_bytes()
        approval = Approval(name, coordinator.host, coordinator.port, fingerprint, members, certificate)
        content = encode_approval(identity, approval)
        path = folder / f"{name}{APPROVED_SUFFIX}"
        if not path.exists() or path.read_bytes() != content:
            write_bytes(path, content)
