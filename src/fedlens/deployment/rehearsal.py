"""A whole federation on one machine, for trying things out: every kit, each hospital's made as at home."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from fedlens.deployment.federation import Federation
from fedlens.deployment.flare_commands import at_once
from fedlens.deployment.joining import accept_members, install, make_request
from fedlens.deployment.kit import KIT_NAME
from fedlens.deployment.members import MEMBERS_NAME
from fedlens.deployment.provisioning import APPROVED_SUFFIX, Provisioned, provision
from fedlens.files import write_bytes


def rehearse(
    federation: Federation, folder: Path, *, rotate: Collection[str] = (), remove: Collection[str] = ()
) -> Provisioned:
    """Provision, and play every hospital's part too: its kit is FOLDER/hospitals/NAME.

    The private keys of all hospitals then lie on one machine, and no fingerprint is compared, since
    nothing travels. A real hospital makes its own kit.

    Args:
        federation: As for :func:`provision`.
        folder: As for :func:`provision`.
        rotate: Hospitals that get new keys.
        remove: Hospitals to be taken out; their kits stay, and are turned away.

    Raises:
        DeploymentError: As :func:`provision`.
    """
    # First, so that a folder or name that is refused is refused before any hospital's keys are made.
    provisioned = provision(federation, folder, remove=remove)
    for name in rotate:
        provisioned.members.key(name)
    kits = {name: folder / "hospitals" / name for name in federation.hospitals}

    def ask(name: str) -> None:
        request = make_request(name, federation, kits[name], rotate=name in rotate)
        write_bytes(folder / "requests" / request.file.name, request.file.read_bytes())

    at_once(ask, [*provisioned.waiting, *rotate])
    result = provision(federation, folder, rotate=rotate)
    fingerprint = result.members.fingerprint()

    def take(name: str) -> None:
        if name in result.approved or not (kits[name] / KIT_NAME).exists():
            install(folder / "approved" / f"{name}{APPROVED_SUFFIX}", kits[name], fingerprint=fingerprint)
        else:
            accept_members(kits[name], folder / MEMBERS_NAME, fingerprint=fingerprint)

    at_once(take, federation.hospitals)
    return replace(result, changed=result.changed or provisioned.changed)
