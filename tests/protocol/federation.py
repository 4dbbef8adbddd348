"""A federation in memory: honest hospitals, an honest coordinator, and all that a liar needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fedlens.protocol.codec import decode, encode, sign
from fedlens.protocol.encoding import EXPONENT_BINS
from fedlens.protocol.keys import SEED_BYTES, encapsulate, encrypt, pair_secret
from fedlens.protocol.messages import Box, Keys, Material, Parameters, Stamp, Unmasking
from fedlens.protocol.roster import COORDINATOR, SIGNATURE_BYTES, Identity, Roster
from fedlens.protocol.sealed_hospital import HospitalSeal
from fedlens.protocol.sealed_sum import SealedSum, SumSettings
from fedlens.protocol.session import box_context
from fedlens.protocol.totals import Layout
from fedlens.protocol.vectors import Opened, Values

STUDY = "5" * 64
TASK = "7" * 64
LAYOUT = Layout({"images": (), "saturated": (), "exponents": (2, EXPONENT_BINS)})
REACH = 4.0


class Federation:
    """Hospitals with fixed updates, and the steps of a sealed sum.

    Args:
        names: One letter a hospital.
        size: Values of an update, in two arrays.
        value_bits: Of the study.
        seed: Of the updates.
    """

    def __init__(self, names: str = "ABCD", *, size: int = 24, value_bits: Any = 16, seed: int = 0) -> None:
        self.coordinator = Identity.generate(COORDINATOR)
        self.identities = {name: Identity.generate(name) for name in names}
        keys = {name: identity.public() for name, identity in self.identities.items()}
        roster = Roster.draft(keys, self.coordinator.public())
        for identity in self.identities.values():
            roster = roster.signed_by(identity)
        self.roster = roster
        self.threshold = len(names) // 2 + 1
        self.value_bits = value_bits
        self.hospitals = {name: self.start(name) for name in names}
        rng = np.random.default_rng(seed)
        self.updates: dict[str, Parameters] = {
            name: {
                "a": rng.normal(size=(size // 2,)).astype(np.float32),
                "b": rng.normal(size=(size - size // 2,)).astype(np.float32),
            }
            for name in names
        }
        self.images = {name: 10 + 3 * place for place, name in enumerate(names)}

    def start(self, name: str, **changes: Any) -> HospitalSeal:
        """A hospital's process, fresh."""
        settings = {"study": STUDY, "threshold": self.threshold, "value_bits": self.value_bits, **changes}
        return HospitalSeal(self.identities[name], self.roster, **settings)

    def stamp(self, round_number: int = 1, step: str = "train", segment: int = 1) -> Stamp:
        """Of one sum of this study."""
        return Stamp(STUDY, self.roster.digest, segment, round_number, step)

    def begin(self, stamp: Stamp | None = None) -> SealedSum:
        """The coordinator's side of a sum."""
        return SealedSum(stamp or self.stamp(), self.roster, self.coordinator, self.threshold)

    def keyed(self, stamp: Stamp | None = None, who: Iterable[str] | None = None) -> SealedSum:
        """A sum for which these hospitals, or all, have made keys and shared their seeds."""
        current = self.begin(stamp)
        names = list(who or self.hospitals)
        request = current.keys_request()
        for name in names:
            current.take_keys(name, self.hospitals[name].keys(request))
        request = current.shares_request()
        for name in names:
            current.take_shares(name, self.hospitals[name].shares(request))
        return current

    def settings(self, **changes: Any) -> SumSettings:
        """What a sum of this federation's updates is over."""
        sizes = [array.size for array in next(iter(self.updates.values())).values()]
        settings = SumSettings(
            value_bits=self.value_bits,
            sizes=sizes,
            ranges=np.full(2, REACH, np.float32),
            totals=LAYOUT.size,
            images=sum(self.images.values()),
            norm_bound=100.0,
        )
        return dataclasses.replace(settings, **changes)

    def planned(self, current: SealedSum, **changes: Any) -> bytes:
        """Fix the sum's plan; returns its seal."""
        return current.make_plan(self.settings(**changes), task=TASK)

    def upload(
        self, current: SealedSum, seal: bytes, name: str, *, material: bytes | None = None, model: str = ""
    ) -> bytes:
        """One hospital's honest answer to a sealed request."""
        hospital = self.hospitals[name]
        given = current.material(name) if material is None else material
        ready = hospital.verify(seal, given, task=TASK, model=model)
        values = Values(self.updates[name], ["a", "b"], 1.0, name.encode().ljust(32))
        upload, _ = hospital.seal(ready, values, {"images": self.images[name]}, LAYOUT)
        return encode(upload)

    def uploaded(self, current: SealedSum, who: Iterable[str] | None = None, **changes: Any) -> bytes:
        """Plan the sum and have these participants, or all, upload; returns the seal."""
        seal = self.planned(current, **changes)
        for name in who or current.plan.participants:
            current.take_upload(name, self.upload(current, seal, name))
        return seal

    def open(self, current: SealedSum, answering: Iterable[str] | None = None) -> Opened:
        """Close, co-sign where needed, unmask and open."""
        current.close()
        self.co_sign(current)
        request = current.unmask_request()
        for name in answering or current.survivors:
            current.take_unmasking(name, self.hospitals[name].unmask(request))
        return current.open()

    def co_sign(self, current: SealedSum) -> None:
        """Have all survivors sign their list, where somebody dropped out."""
        if current.dropped:
            request = current.survivors_request()
            for name in current.survivors:
                current.take_signature(name, self.hospitals[name].co_sign(request))

    def exact(self, names: Iterable[str]) -> npt.NDArray[np.float64]:
        """The sum of these hospitals' updates in the clear."""
        flats = [np.concatenate([array.ravel() for array in self.updates[name].values()]) for name in names]
        return np.asarray(np.sum(np.stack(flats).astype(np.float64), axis=0))


def totals_of(opened: Opened) -> Mapping[str, Any]:
    """Totals of an opened sum by name."""
    return LAYOUT.restore(opened.totals)


def replanned(federation: Federation, current: SealedSum, **changes: Any) -> bytes:
    """The sum's plan with changes, signed by a coordinator that lies."""
    return sign(dataclasses.replace(current.plan, **changes), federation.coordinator)


def with_box(federation: Federation, current: SealedSum, **changes: Any) -> bytes:
    """Material for A in which the box from B has changes that B signed."""
    given = decode(current.material("A"), Material)
    box = dataclasses.replace(decode(given.boxes["B"][:-SIGNATURE_BYTES], Box), **changes)
    boxes = {**given.boxes, "B": sign(box, federation.identities["B"])}
    return encode(dataclasses.replace(given, boxes=boxes))


def text_for(federation: Federation, sender: str, receiver: str, plain: bytes) -> tuple[bytes, bytes]:
    """A text that the receiver can open and its key ciphertext, made by a sender that lies."""
    session = federation.hospitals[sender]._next
    assert session is not None
    secret, kem = encapsulate(session.read[receiver].box_key)
    context = box_context(session.stamp, sender, receiver, session.peers)
    key = pair_secret(session.box_key.agree(session.read[receiver].box_key), secret, "box", context)
    return encrypt(key, plain, context), kem


def with_shares_of(federation: Federation, current: SealedSum, *, teller: str, index: int) -> bytes:
    """An answer to the unmask request in which the first share is of another index than the teller's."""
    answer = decode(
        federation.hospitals[teller].unmask(current.unmask_request())[:-SIGNATURE_BYTES], Unmasking
    )
    owner = federation.hospitals[current.survivors[0]]._current
    assert owner is not None
    shares = owner.all_shares[index][0] + answer.self_shares[SEED_BYTES:]
    return sign(dataclasses.replace(answer, self_shares=shares), federation.identities[teller])


def with_false_commitment(federation: Federation, liar: str) -> SealedSum:
    """A keyed sum in which one hospital committed to another self-mask seed than it shared."""
    current = federation.begin()
    request = current.keys_request()
    for name, hospital in federation.hospitals.items():
        content = hospital.keys(request)
        if name == liar:
            session = hospital._next
            assert session is not None
            keys = decode(content[:-SIGNATURE_BYTES], Keys)
            false = dataclasses.replace(keys, commitments=bytes(32) + keys.commitments[32:])
            content = session.own_keys = sign(false, federation.identities[name])
        current.take_keys(name, content)
    request = current.shares_request()
    for name, hospital in federation.hospitals.items():
        current.take_shares(name, hospital.shares(request))
    return current
