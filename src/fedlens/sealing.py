"""Sealing a federation on one machine: identities, roster and segment number, from files to objects.

::

    <arm>/coordinator.key                  the coordinator's identity, mode 0600
    <arm>/roster.json                      names, public keys, every hospital's signature
    <arm>/segment                          how often the coordinator was started
    <arm>/hospitals/NAME/identity.key      the hospital's identity, mode 0600, at home
    <arm>/hospitals/NAME/sealed.json       sums it took part in and opened, at home
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from fedlens.coordinator.sealed import SealingSetup
from fedlens.errors import ProtocolError, SettingsError
from fedlens.files import write_bytes, write_json, write_text
from fedlens.hospital.hospital import Hospital
from fedlens.hospital.sealed import SealedHospital, load_ledger
from fedlens.protocol.roster import COORDINATOR, Identity, Roster
from fedlens.protocol.sealed_hospital import HospitalSeal, check_threshold
from fedlens.run_folder import HOSPITALS_NAME
from fedlens.study import LEAST_SEALED, Study

KEY_NAME = "identity.key"
ROSTER_NAME = "roster.json"
SEGMENT_NAME = "segment"


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
        SealedHospital(
            member,
            HospitalSeal(
                identity,
                roster,
                study=study.digest(),
                threshold=threshold,
                value_bits=study.sealing.value_bits,
                ledger=load_ledger(folders[member.name], study.digest()),
            ),
            folders[member.name],
        )
        for member, identity in zip(members, identities, strict=True)
    ]
    setup = SealingSetup(
        roster=roster,
        identity=coordinator,
        segment=next_segment(folder / SEGMENT_NAME),
        threshold=threshold,
        value_bits=study.sealing.value_bits,
        norm_bound=study.sealing.norm_bound,
    )
    return sealed, setup


def threshold_of(study: Study, hospitals: int) -> int:
    """Fewest hospitals whose sum is opened: as asked for, or the least that stands one traitor.

    With 2 t > n + 1 a coordinator that lies and one hospital that helps it cannot open two lists for one
    sum (docs/protocol.md). The study's minimum is kept too.

    Raises:
        ProtocolError: As asked for, it is not over half of the roster, or more than it has.
        SettingsError: A sum of fewer than three was asked for, or rounds would draw too few hospitals.
    """
    federation = study.federation
    wanted = max(study.sealing.threshold or (hospitals + 1) // 2 + 1, federation.minimum_hospitals)
    if wanted < LEAST_SEALED:
        raise SettingsError(
            f"sealing.threshold = {wanted}.",
            why="In a sum of two, each knows the other's update: it need only take off its own.",
            fix=f"Set {LEAST_SEALED} or more, or 0.",
        )
    check_threshold(wanted, hospitals)
    drawn = max(federation.minimum_hospitals, round(federation.participation * hospitals))
    if drawn < wanted:
        raise SettingsError(
            f"federation.participation = {federation.participation} draws {drawn} of {hospitals} hospitals.",
            why=f"A sealed sum takes {wanted} or more, so no round could be opened.",
            fix=f"Set federation.participation = {math.ceil(100 * wanted / hospitals) / 100} or more.",
        )
    return wanted


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


def load_roster(path: Path) -> Roster:
    """A roster file; signatures are not checked here.

    Raises:
        ProtocolError: Missing or damaged.
    """
    try:
        content = json.loads(path.read_bytes())
        members = {str(name): bytes.fromhex(key) for name, key in content["members"].items()}
        signatures = {str(name): bytes.fromhex(text) for name, text in content["signatures"].items()}
        return Roster(members, bytes.fromhex(content["coordinator"]), signatures)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(f"Cannot read the roster {path}: {error}.", fix="Put the file back.") from error


def save_roster(path: Path, roster: Roster) -> None:
    """Write a roster file."""
    write_json(
        path,
        {
            "members": {name: key.hex() for name, key in roster.members.items()},
            "coordinator": roster.coordinator.hex(),
            "signatures": {name: signature.hex() for name, signature in roster.signatures.items()},
            "fingerprint": roster.fingerprint(),
        },
    )


def next_segment(path: Path) -> int:
    """Count one more start of the coordinator, on disk before anything is sent.

    Raises:
        ProtocolError: The file does not hold a number.
    """
    try:
        number = int(path.read_text()) + 1 if path.exists() else 1
    except ValueError as error:
        raise ProtocolError(
            f"{path} does not hold a number.",
            why="Hospitals refuse a segment that they have seen.",
            fix="Write a number into it that is larger than any segment in history.jsonl.",
        ) from error
    write_text(path, f"{number}\n")
    return number


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
