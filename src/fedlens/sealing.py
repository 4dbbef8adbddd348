"""Sealing a federation on one machine: identities, roster and segment number, from files to objects.

::

    <arm>/coordinator.key                  the coordinator's identity, mode 0600
    <arm>/roster.json                      names, public keys, every hospital's signature
    <arm>/segment                          how often the coordinator was started
    <arm>/hospitals/NAME/identity.key      the hospital's identity, mode 0600, at home
    <arm>/hospitals/NAME/sealed.json       sums it took part in and opened, at home
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedlens.coordinator.sealed import SealingSetup
from fedlens.errors import ProtocolError
from fedlens.files import write_bytes
from fedlens.hospital.hospital import Hospital
from fedlens.hospital.sealed import SealedHospital, load_ledger
from fedlens.protocol.roster import COORDINATOR, Identity, Roster
from fedlens.protocol.sealed_hospital import HospitalSeal
from fedlens.run_folder import HOSPITALS_NAME
from fedlens.sealing_files import (
    ROSTER_NAME,
    SEGMENT_NAME,
    load_roster,
    next_segment,
    save_roster,
    threshold_of,
)
from fedlens.study import Study

KEY_NAME = "identity.key"


def seal_federation(
    study: Study, members: Sequence[Hospital], folder: Path
) -> tuple[list[SealedHospital], SealingSetup]:
    """Every hospital behind its seal, and what the coordinator needs.

    Args:
        study: The settings.
        members: Hospitals in roster order.
        folder: Of the arm; identities are made there at first and read from then on.

    Raises:
        ProtocolError: A key or roster file is damaged, or the roster is of other hospitals.
        SettingsError: Too many hospitals, or a threshold that is not over half of them.
    """
    threshold = threshold_of(study, len(members))
    coordinator = load_identity(folder / "coordinator.key", COORDINATOR)
    folders = {member.name: folder / HOSPITALS_NAME / member.name for member in members}
    identities = [load_identity(folders[member.name] / KEY_NAME, member.name) for member in members]
    roster = _roster(folder / ROSTER_NAME, identities, coordinator)
    sealed = [
        sealed_hospital(study, member, identity, roster, folders[member.name])
        for member, identity in zip(members, identities, strict=True)
    ]
    setup = SealingSetup.of(study, roster, coordinator, next_segment(folder / SEGMENT_NAME), threshold)
    return sealed, setup


def sealed_hospital(
    study: Study, hospital: Hospital, identity: Identity, roster: Roster, folder: Path
) -> SealedHospital:
    """One hospital behind its seal.

    Args:
        study: The settings.
        hospital: Trains and measures.
        identity: Its own.
        roster: Signed by every hospital.
        folder: For its ledger and log, at home.

    Raises:
        ProtocolError: The ledger or roster is not usable.
        SettingsError: The threshold is not over half of the roster.
    """
    digest = study.digest()
    seal = HospitalSeal(
        identity,
        roster,
        study=digest,
        threshold=threshold_of(study, len(roster.members)),
        value_bits=study.sealing.value_bits,
        ledger=load_ledger(folder, digest),
    )
    return SealedHospital(hospital, seal, folder)


def load_identity(path: Path, name: str) -> Identity:
    """The identity in a key file; a new one is made where there is none.

    Raises:
        ProtocolError: The file does not hold a key.
    """
    if not path.exists():
        identity = Identity.generate(name)
        write_bytes(path, identity.secret(), mode=0o600)
        return identity
    secret = path.read_bytes()
    if len(secret) != 32:
        raise ProtocolError(
            f"{path} holds {len(secret)} bytes, not a key of 32.", fix="Put the file back from a copy."
        )
    return Identity.from_bytes(name, secret)


def _roster(path: Path, identities: Sequence[Identity], coordinator: Identity) -> Roster:
    """The signed roster of these identities; read where it was made before."""
    keys = {identity.name: identity.public() for identity in identities}
    if path.exists():
        roster = load_roster(path)
        # A dict compares without order, and order gives the share indices.
        if list(roster.members.items()) == list(keys.items()) and roster.coordinator == coordinator.public():
            return roster
        raise ProtocolError(
            f"{path} lists other hospitals or keys than there are.",
            why="A roster does not change within a study.",
            fix="Put the key files back, or choose another output.",
        )
    roster = Roster.draft(keys, coordinator.public())
    for identity in identities:
        roster = roster.signed_by(identity)
    save_roster(path, roster)
    return roster
