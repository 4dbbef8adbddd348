"""The hospital's side: keys made at home, a request, and the kit that comes of its approval.

::

    KIT/identity.key     the signing key, made by the first request
    KIT/request/         until it is installed: FLARE's TLS key and notes
    KIT/next/            while keys are rotated: the same two, new, beside those in use
    KIT/NAME.request.zip to be sent to the lead; holds nothing secret
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fedlens.deployment.exchange import Approval, encode_request, read_approval
from fedlens.deployment.federation import Federation
from fedlens.deployment.flare_commands import build_workspace, make_tls_request
from fedlens.deployment.flare_config import write_hospital_config
from fedlens.deployment.kit import (
    FLARE_NAME,
    KEY_NAME,
    KIT_NAME,
    Kit,
    new_identity,
    open_kit,
    place_workspace,
    private_folder,
    read_identity,
    read_kit,
    write_kit,
)
from fedlens.deployment.members import (
    MEMBERS_NAME,
    Members,
    key_fingerprint,
    load_members,
    same_fingerprint,
    save_members,
)
from fedlens.deployment.provisioning import REQUEST_SUFFIX
from fedlens.errors import DeploymentError
from fedlens.files import write_bytes, write_text
from fedlens.protocol.roster import Identity

_NEXT = "next"
_REQUEST = "request"


@dataclass(frozen=True)
class MadeRequest:
    """A request that a hospital made.

    Attributes:
        file: To be sent to the lead.
        fingerprint: Of the hospital's signing key, to be read to the lead on the phone.
    """

    file: Path
    fingerprint: str


def make_request(name: str, federation: Federation, folder: Path, *, rotate: bool = False) -> MadeRequest:
    """Make a hospital's keys, which never leave ``folder``, and a request that they be approved.

    Made again before the approval came, it keeps the signing key and asks with a new TLS key, so the
    newest request is the one to send.

    Args:
        name: The hospital's, as the federation file lists it.
        federation: A copy of the lead's federation file.
        folder: The hospital's kit, or where it will be.
        rotate: Make new keys for an installed kit. Those in use stay until the new ones are installed.

    Raises:
        DeploymentError: The name is not listed; the folder holds something else; the kit is installed
            already (and ``rotate`` is not asked for), or not yet; FLARE refuses.
    """
    if name not in federation.hospitals:
        raise DeploymentError(
            f"The federation file lists no hospital {name!r}.",
            why=f"It lists {', '.join(federation.hospitals)}.",
            fix="Write the name as there, or ask the lead to add it.",
        )
    installed = (folder / KIT_NAME).exists()
    if installed:
        _check_kit(read_kit(folder), name, federation, rotate)
    elif rotate:
        raise DeploymentError(
            f"{folder} is not installed yet, so there are no keys to rotate.", fix="Leave --rotate out."
        )
    elif folder.exists() and not (folder / _REQUEST).is_dir() and (folder.is_file() or any(folder.iterdir())):
        raise DeploymentError(f"{folder} is not empty and holds no kit.", fix="Choose another with --kit.")
    private_folder(folder)
    place = private_folder(folder / _NEXT) if rotate else folder
    tls = private_folder(place / _REQUEST)
    identity = new_identity(place / KEY_NAME, name)
    request = make_tls_request(federation, "hospital", name, tls)
    file = folder / f"{name}{REQUEST_SUFFIX}"
    write_bytes(file, encode_request(federation.name, identity, request.read_bytes()))
    return MadeRequest(file, key_fingerprint(identity.public()))


def install(approved: Path, folder: Path, *, fingerprint: str) -> Kit:
    """Make a kit out of an approval and the keys at home, or put rotated keys into use.

    Args:
        approved: The lead's ``NAME.approved.zip``.
        folder: Where :func:`make_request` left the keys.
        fingerprint: Of the members, as two people compared it on the phone.

    Raises:
        DeploymentError: Damaged, altered, or for other keys, members or another federation; installed
            already; FLARE refuses. Then the kit is as before.
    """
    approval = read_approval(approved)
    _check_fingerprint(approval.members, fingerprint)
    rotating = (folder / _NEXT).is_dir()
    if (folder / KIT_NAME).exists() and not rotating:
        raise DeploymentError(
            f"{folder} is installed already.",
            why="An approval is installed once; nothing is overwritten.",
            fix="For newer members: fedlens hospital members. For new keys: hospital request --rotate.",
        )
    place = folder / _NEXT if rotating else folder
    if not (place / _REQUEST).is_dir():
        raise DeploymentError(
            f"{folder} holds no request that could have been approved.",
            fix="Give the folder that `fedlens hospital request` made, with --kit.",
        )
    identity = read_identity(place / KEY_NAME, approval.name)
    _check_own_key(approval.members, identity)
    if rotating:
        _check_federation(read_kit(folder), approval)
        _check_coordinator(folder, approval.members)
    with tempfile.TemporaryDirectory(dir=place, prefix=".install-") as work:
        certificate = Path(work) / f"{approval.name}.signed.zip"
        certificate.write_bytes(approval.flare)
        built = build_workspace(certificate, place / _REQUEST, approval.authority, Path(work) / "built")
        if rotating:
            _replace_startup(built, folder)
        else:
            place_workspace(built, folder)
    return _finish(approval, identity, place, folder)


def accept_members(folder: Path, file: Path, *, fingerprint: str) -> Members:
    """Take a newer ``members.json`` into a kit: a hospital came, went, or has new keys.

    Args:
        folder: The hospital's kit.
        file: As the lead sent it.
        fingerprint: Of the new members, as two people compared it on the phone.

    Raises:
        DeploymentError: Damaged, of another federation or coordinator, or with another key for this
            hospital than its own. Then the kit is as before.
    """
    kit = open_kit(folder, "hospital")
    members = load_members(file)
    _check_fingerprint(members, fingerprint)
    if members.federation != kit.federation:
        raise DeploymentError(
            f"{file} is of federation {members.federation}, this kit of {kit.federation}.",
            fix="Ask the lead for the members.json of this federation.",
        )
    _check_coordinator(folder, members)
    _check_own_key(members, kit.identity())
    save_members(folder / MEMBERS_NAME, members)
    return members


def _check_kit(kit: Kit, name: str, federation: Federation, rotate: bool) -> None:
    if (kit.kind, kit.name, kit.federation) != ("hospital", name, federation.name):
        raise DeploymentError(
            f"{kit.folder} is the kit of {kit.kind} {kit.name} in federation {kit.federation}.",
            fix="Choose another folder with --kit.",
        )
    if not rotate:
        raise DeploymentError(
            f"{kit.folder} is installed already.",
            why="A second request would ask for other keys than those in use.",
            fix="If new keys are wanted: --rotate.",
        )


def _check_fingerprint(members: Members, fingerprint: str) -> None:
    if not same_fingerprint(members.fingerprint(), fingerprint):
        raise DeploymentError(
            f"The members' fingerprint is {members.fingerprint()}, not {fingerprint}.",
            why="Another key may have been put in on the way, or the lead has newer members by now.",
            fix="Do not use this file. Ask the lead for the newest one, and compare again on the phone.",
        )


def _check_own_key(members: Members, identity: Identity) -> None:
    if members.hospitals.get(identity.name) != identity.public():
        raise DeploymentError(
            f"The members list another key for {identity.name} than the one kept here, or none.",
            why="Whoever holds the listed key could speak in this hospital's name.",
            fix="Tell the lead on the phone. Was an older or another request of this hospital approved?",
        )


def _check_federation(kit: Kit, approval: Approval) -> None:
    if (kit.federation, kit.name) != (approval.members.federation, approval.name):
        raise DeploymentError(
            f"The approval is for {approval.name} in federation {approval.members.federation}, the kit that "
            f"of {kit.name} in {kit.federation}.",
            fix="Ask the lead for the right one.",
        )


def _check_coordinator(folder: Path, members: Members) -> None:
    if members.coordinator != load_members(folder / MEMBERS_NAME).coordinator:
        raise DeploymentError(
            "The coordinator's key is another than the one this kit trusts.",
            why="A coordinator keeps its key; with another one it is another coordinator.",
            fix="Ask the lead on the phone. For a new coordinator, make a new kit in another folder.",
        )


def _replace_startup(built: Path, folder: Path) -> None:
    """Put the new certificate and TLS key where the old ones were; the rest of the workspace stays."""
    startup = private_folder(built / "startup")
    place = folder / FLARE_NAME / "startup"
    if place.exists():
        shutil.move(place, built / "old-startup")
    shutil.move(startup, place)


def _finish(approval: Approval, identity: Identity, place: Path, folder: Path) -> Kit:
    """What is left once FLARE's workspace stands; kit.json comes last, as it makes the folder a kit."""
    from fedlens.deployment.policy import POLICY_TEXT

    kit = Kit(folder, "hospital", approval.name, approval.members.federation, approval.host, approval.port)
    write_hospital_config(folder)
    if not kit.policy.exists():
        write_text(kit.policy, POLICY_TEXT)
    write_bytes(folder / KEY_NAME, identity.secret(), mode=0o600)
    save_members(folder / MEMBERS_NAME, approval.members)
    write_kit(kit)
    # The TLS key lies in the workspace now; a second copy would only be one more to lose.
    shutil.rmtree(place / _REQUEST)
    if place != folder:
        shutil.rmtree(place)
    (folder / f"{approval.name}{REQUEST_SUFFIX}").unlink(missing_ok=True)
    return kit
