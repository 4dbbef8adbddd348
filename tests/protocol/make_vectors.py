"""Writes test vectors that another implementation of the sealed-round protocol can check itself against.

::

    python tests/protocol/make_vectors.py tests/protocol/vectors.json

Three hospitals share their seeds and upload; their sum is opened, and so is that over A and B alone, had C
dropped out before its upload. Every secret is read from a stream, SHAKE-256 of a label. ML-KEM's
encapsulations cannot be fixed, so their ciphertexts and secrets stand in the file, and all else follows:
:func:`make_vectors` with the encapsulations of a file gives that file again.

Bytes are hexadecimal. Within them, ``values`` of a hospital are float32, those of a sum float64, ``words``
uint32, ``masked_totals`` uint64, all little-endian. Signed messages end with their signature. Pairs are
named ``sender>receiver`` where one sends the other a box, ``earlier+later`` where they share a mask.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

from fedlens.protocol.codec import encode, read_signed
from fedlens.protocol.encoding import Encoder
from fedlens.protocol.keys import encapsulate, pair_secret
from fedlens.protocol.masks import Masks
from fedlens.protocol.messages import Box, Keys, SealedUpload, Shares, Stamp, SumPlan
from fedlens.protocol.packing import blocks
from fedlens.protocol.roster import COORDINATOR, Identity, Roster
from fedlens.protocol.sealed_hospital import HospitalSeal
from fedlens.protocol.sealed_sum import SealedSum, SumSettings
from fedlens.protocol.session import Session, box_context, context_of, mask_seed_alone, pair_mask
from fedlens.protocol.shamir import split_secret
from fedlens.protocol.totals import Layout, train_layout, value_names
from fedlens.protocol.vectors import Opened, Values

NAMES = ("A", "B", "C")
STUDY = "fedlens test vectors"
THRESHOLD = 2
VALUE_BITS = 16
IMAGES = {"A": 30, "B": 50, "C": 20}
SHAPES = {"classifier.weight": (4, 6), "norm.bias": (16,)}
RANGES = {"classifier.weight": 0.5, "norm.bias": 0.25}
TASK = hashlib.sha256(b"request").hexdigest()
MOST = 1 << 20

Encapsulated = tuple[bytes, bytes]
"""An ML-KEM secret and its ciphertext."""


class Stream:
    """Fixed bytes in place of randomness: SHAKE-256 of a label, from the start on."""

    def __init__(self, label: str) -> None:
        self._hash = hashlib.shake_256(label.encode())
        self._taken = 0

    def __call__(self, size: int) -> bytes:
        end = self._taken + size
        content = self._hash.digest(end)[self._taken :]
        self._taken = end
        return content


@dataclass
class Run:
    """All that one run of the protocol came to, the hospitals' secrets included."""

    roster: Roster
    sessions: dict[str, Session]
    shares: dict[str, bytes]
    seal: bytes
    uploads: dict[str, SealedUpload]
    opened: Opened

    def boxes(self) -> dict[tuple[str, str], Box]:
        """By sender and receiver."""
        return {
            (sender, receiver): read_signed(box, Box, self.roster, sender, most=MOST)
            for sender, content in self.shares.items()
            for receiver, box in read_signed(content, Shares, self.roster, sender, most=MOST).boxes.items()
        }


def identity(name: str) -> Identity:
    """A member whose private key follows from its name."""
    return Identity.from_bytes(name, Stream(f"identity {name}")(32))


def make_roster() -> Roster:
    """Of all hospitals, signed by each."""
    roster = Roster.draft({name: identity(name).public() for name in NAMES}, identity(COORDINATOR).public())
    for name in NAMES:
        roster = roster.signed_by(identity(name))
    return roster


def make_stamp(roster: Roster) -> Stamp:
    """The sum of the first round."""
    return Stamp(STUDY, roster.digest, 1, 1, "train")


def own_values(name: str) -> Values:
    """A hospital's update; the first value of B lies beyond its range."""
    stream = Stream(f"values {name}")
    arrays = {}
    for array, shape in SHAPES.items():
        drawn = np.frombuffer(stream(2 * int(np.prod(shape))), "<i2").reshape(shape)
        arrays[array] = (drawn * np.float32(RANGES[array] / 2**15)).astype(np.float32)
    if name == "B":
        arrays["classifier.weight"][0, 0] = 4
    return Values(arrays, value_names(arrays), IMAGES[name] / sum(IMAGES.values()), stream(32))


def own_totals(name: str) -> dict[str, int]:
    """A hospital's integers but for those that sealing finds."""
    number = NAMES.index(name)
    return {
        "images": IMAGES[name],
        "seen": 2 * IMAGES[name],
        "correct": 17 + number,
        "loss": -number << 20,
        "milliseconds": 1 << 40,
    }


def layout() -> Layout:
    """Of the integers."""
    return train_layout(own_values("A").arrays)


def run(encapsulating: Callable[[bytes], Encapsulated], *, dropped: tuple[str, ...] = ()) -> Run:
    """One sum from keys to the opened numbers."""
    roster = make_roster()
    hospitals = {
        name: HospitalSeal(
            identity(name),
            roster,
            study=STUDY,
            threshold=THRESHOLD,
            value_bits=VALUE_BITS,
            random=Stream(f"secrets {name}"),
        )
        for name in NAMES
    }
    total = SealedSum(make_stamp(roster), roster, identity(COORDINATOR), THRESHOLD)
    for name, hospital in hospitals.items():
        total.take_keys(name, hospital.keys(total.keys_request()))
    with patch("fedlens.protocol.session.encapsulate", encapsulating):
        shares = {name: hospital.shares(total.shares_request()) for name, hospital in hospitals.items()}
    for name, content in shares.items():
        total.take_shares(name, content)
    settings = SumSettings(
        value_bits=VALUE_BITS,
        sizes=own_values("A").sizes,
        ranges=np.array(list(RANGES.values()), np.float32),
        totals=layout().size,
        images=sum(IMAGES.values()),
        norm_bound=10.0,
    )
    seal = total.make_plan(settings, task=TASK)
    uploads = {}
    for name, hospital in hospitals.items():
        ready = hospital.verify(seal, total.material(name), task=TASK)
        uploads[name], _ = hospital.seal(ready, own_values(name), own_totals(name), layout())
        if name not in dropped:
            total.take_upload(name, encode(uploads[name]))
    total.close()
    if dropped:
        for name in total.survivors:
            total.take_signature(name, hospitals[name].co_sign(total.survivors_request()))
    for name in total.survivors:
        total.take_unmasking(name, hospitals[name].unmask(total.unmask_request()))
    sessions = {name: _session(hospital) for name, hospital in hospitals.items()}
    return Run(roster, sessions, shares, seal, uploads, total.open())


def _session(hospital: HospitalSeal) -> Session:
    session = hospital._current
    assert session is not None
    return session


def make_vectors(encapsulations: Iterable[Encapsulated] | None = None) -> dict[str, Any]:
    """The content of a file of vectors.

    Args:
        encapsulations: Those of an earlier file, from :func:`encapsulations_of`.
    """
    given = None if encapsulations is None else iter(encapsulations)
    drawn: list[Encapsulated] = []

    def draw(public: bytes) -> Encapsulated:
        drawn.append(encapsulate(public) if given is None else next(given))
        return drawn[-1]

    whole = run(draw)
    again = iter(drawn)
    without_c = run(lambda _: next(again), dropped=("C",))
    assert whole.uploads == without_c.uploads
    roster = whole.roster
    return {
        "threshold": THRESHOLD,
        "value_bits": VALUE_BITS,
        "arrays": [
            {"name": name, "shape": list(shape), "range": RANGES[name]} for name, shape in SHAPES.items()
        ],
        "totals": [[name, list(shape)] for name, shape in layout().shapes.items()],
        "shares": _shares(),
        "coordinator": _member(identity(COORDINATOR)),
        "roster": {
            "digest": roster.digest,
            "fingerprint": roster.fingerprint(),
            "signatures": {name: signature.hex() for name, signature in roster.signatures.items()},
        },
        "stamp": dataclasses.asdict(make_stamp(roster)),
        "plan": whole.seal.hex(),
        "hospitals": {name: _hospital(whole, name) for name in NAMES},
        "boxes": {
            f"{sender}>{receiver}": _box(whole, box) for (sender, receiver), box in whole.boxes().items()
        },
        "pairs": {f"{first}+{second}": _pair(whole, first, second) for first, second in pairs()},
        "sums": {"A+B+C": _opened(whole.opened), "A+B": _opened(without_c.opened)},
    }


def pairs() -> list[tuple[str, str]]:
    """Hospitals that share a mask, the earlier one first."""
    return [(first, second) for first in NAMES for second in NAMES if first < second]


def encapsulations_of(vectors: Mapping[str, Any]) -> list[Encapsulated]:
    """The encapsulations that stand in a file of vectors, in the order in which they were made."""
    found = []
    for pair, box in vectors["boxes"].items():
        found.append((bytes.fromhex(box["kem_secret"]), bytes.fromhex(box["kem"])))
        if box["mask_kem"]:
            secret = vectors["pairs"][pair.replace(">", "+")]["kem_secret"]
            found.append((bytes.fromhex(secret), bytes.fromhex(box["mask_kem"])))
    return found


def words_of(values: Values, plan: SumPlan) -> npt.NDArray[np.unsignedinteger]:
    """A hospital's values in fixed point, before any mask."""
    encoder = Encoder(
        values.sizes,
        plan.ranges["ranges"].astype(np.float64),
        value_bits=plan.value_bits,
        ring=plan.ring_bits,
        weight=values.weight,
        seed=values.seed,
    )
    flat = np.concatenate([values.arrays[name].ravel() for name in values.names])
    return np.concatenate([encoder.encode(flat[part], part.start) for part in blocks(len(flat))])


def keystream(seed: bytes) -> bytes:
    """The first 64 bytes of a mask."""
    words = np.zeros(64, np.uint8)
    Masks([(seed, 1)]).add_to(words)
    return words.tobytes()


def _member(member: Identity) -> dict[str, str]:
    return {"secret": member.secret().hex(), "public": member.public().hex()}


def _shares() -> dict[str, Any]:
    """A secret shared at a higher threshold than the hospitals' seeds are."""
    stream = Stream("shares")
    secret = stream(32)
    shares = split_secret(secret, threshold=3, indices=[1, 2, 5, 254, 255], random=stream)
    return {
        "random": "shares",
        "threshold": 3,
        "secret": secret.hex(),
        "shares": {str(index): share.hex() for index, share in shares.items()},
    }


def _hospital(whole: Run, name: str) -> dict[str, Any]:
    session = whole.sessions[name]
    stream = Stream(f"secrets {name}")
    self_seed, mask_seed, box_seed = (stream(32) for _ in range(3))
    assert (self_seed, mask_seed) == (session.self_seed, session.mask_seed)
    keys = read_signed(session.own_keys, Keys, whole.roster, name, most=MOST)
    plan = read_signed(whole.seal, SumPlan, whole.roster, COORDINATOR, most=MOST)
    values = own_values(name)
    mask = mask_seed_alone(self_seed, session.stamp, name)
    upload = whole.uploads[name]
    return {
        **_member(identity(name)),
        "random": f"secrets {name}",
        "self_seed": self_seed.hex(),
        "mask_seed": mask_seed.hex(),
        "box_seed": box_seed.hex(),
        "box_key": keys.box_key.hex(),
        "mask_key": keys.mask_key.hex(),
        "self_shares": {index: shares[0].hex() for index, shares in _by_text(session.all_shares)},
        "mask_shares": {index: shares[1].hex() for index, shares in _by_text(session.all_shares)},
        "commitments": keys.commitments.hex(),
        "keys": session.own_keys.hex(),
        "deposit": read_signed(whole.shares[name], Shares, whole.roster, name, most=MOST).deposit.hex(),
        "self_mask": {
            "context": context_of(session.stamp, name).hex(),
            "seed": mask.hex(),
            "keystream": keystream(mask).hex(),
        },
        "weight": values.weight,
        "rounding_seed": values.seed.hex(),
        "values": {array: values.arrays[array].tobytes().hex() for array in values.names},
        "totals": own_totals(name),
        "words": words_of(values, plan).tobytes().hex(),
        "masked_values": bytes(upload.values).hex(),
        "masked_totals": bytes(upload.totals).hex(),
        "receipt": upload.receipt.hex(),
    }


def _by_text(shares: Mapping[int, tuple[bytes, bytes]]) -> Iterable[tuple[str, tuple[bytes, bytes]]]:
    return ((str(index), content) for index, content in shares.items())


def _box(whole: Run, box: Box) -> dict[str, str]:
    sender, receiver = whole.sessions[box.sender], whole.sessions[box.receiver]
    context = box_context(box.stamp, box.sender, box.receiver, sender.peers)
    x25519 = sender.box_key.agree(receiver.box_key.public())
    secret = receiver.box_key.decapsulate(box.kem)
    return {
        "context": context.hex(),
        "x25519": x25519.hex(),
        "kem": box.kem.hex(),
        "kem_secret": secret.hex(),
        "key": pair_secret(x25519, secret, "box", context).hex(),
        "text": box.text.hex(),
        "mask_kem": box.mask_kem.hex(),
    }


def _pair(whole: Run, first: str, second: str) -> dict[str, str]:
    session, other = whole.sessions[first], whole.sessions[second]
    x25519, secret = session.mask_key.agree(other.mask_key.public()), session.encapsulated[second]
    seed, _ = pair_mask(x25519, secret, session.stamp, first, second, session.peers, whole.roster)
    return {
        "context": box_context(session.stamp, first, second, session.peers).hex(),
        "x25519": x25519.hex(),
        "kem_secret": secret.hex(),
        "seed": seed.hex(),
        "keystream": keystream(seed).hex(),
    }


def _opened(opened: Opened) -> dict[str, Any]:
    return {"values": opened.values.tobytes().hex(), "totals": opened.totals.tolist()}


def main(path: Path) -> None:
    """Write a file of fresh vectors."""
    path.write_text(json.dumps(make_vectors(), indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
