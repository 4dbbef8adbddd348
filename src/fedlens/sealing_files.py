"""What sealing keeps in files at the coordinator, and the threshold of a study's sums.

Apart from :mod:`fedlens.sealing`, so that a coordinator on a machine of its own needs nothing of a hospital.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from fedlens.errors import ProtocolError, SettingsError
from fedlens.files import write_text
from fedlens.protocol.roster import Roster
from fedlens.protocol.sealed_hospital import check_threshold
from fedlens.study import LEAST_SEALED, Study

ROSTER_NAME = "roster.json"
SEGMENT_NAME = "segment"


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


def fewest_in_a_sum(study: Study, hospitals: int) -> int:
    """Fewest hospitals whose numbers come together in a round, sealed or in the clear.

    Raises:
        ProtocolError: As :func:`threshold_of`.
        SettingsError: As :func:`threshold_of`.
    """
    return threshold_of(study, hospitals) if study.sealed(hospitals) else study.federation.minimum_hospitals


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
    """Write a roster file, hospitals in their order: it gives the share indices and is part of the digest."""
    content = {
        "members": {name: key.hex() for name, key in roster.members.items()},
        "coordinator": roster.coordinator.hex(),
        "signatures": {name: signature.hex() for name, signature in roster.signatures.items()},
        "fingerprint": roster.fingerprint(),
    }
    write_text(path, json.dumps(content, indent=2) + "\n")


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
