"""A hospital's state machine for sealed sums: it verifies, never trusts.

::

    keys -> shares -> verify + seal -> (co-sign ->) unmask
                      '-- keys for the next sum    '-- shares for the next sum

In steady state a sum takes two exchanges: the upload carries keys for the next sum, and the unmasking
carries shares for it. Co-signing is needed only where a hospital dropped out between shares and upload.

Whatever a message is, the machine answers it or raises a :class:`~fedlens.errors.ProtocolError`,
and is as it was before. It opens no file and reads no clock; the caller writes :attr:`HospitalSeal.ledger`
to disk before any answer leaves.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from fedlens.errors import ProtocolError
from fedlens.protocol.codec import decode, read_signed, sign
from fedlens.protocol.encoding import WIDE_BITS, Encoded, check_capacity
from fedlens.protocol.ledger import Ledger, position
from fedlens.protocol.messages import (
    CoSignature,
    KeysRequest,
    Material,
    Receipt,
    SealedUpload,
    SharesRequest,
    Stamp,
    SumPlan,
    SurvivorsRequest,
    Unmasking,
    UnmaskRequest,
)
from fedlens.protocol.roster import COORDINATOR, Identity, Roster
from fedlens.protocol.session import (
    MOST_SIGNED_BYTES,
    Session,
    begin_session,
    check_stamp,
    in_roster_order,
    keys_digest,
    mask_seeds,
    next_stamp,
    open_box,
    read_all_keys,
    read_box,
    sha256,
    share_out,
)
from fedlens.protocol.shamir import Random
from fedlens.protocol.totals import Layout
from fedlens.protocol.vectors import Values, seal_numbers

_MOST_ARRAYS = 1 << 16
# Beyond these, steps would leave single precision.
_LEAST_RANGE, _MOST_RANGE = 2.0**-60, 2.0**60
L = TypeVar("L", SurvivorsRequest, UnmaskRequest)
M = TypeVar("M")


@dataclass(frozen=True)
class Ready:
    """A verified plan with all that sealing under it needs.

    Attributes:
        plan: What all survivors will have signed.
        seeds: Of all masks, with their signs.
    """

    plan: SumPlan
    seeds: list[tuple[bytes, int]] = field(repr=False)


class HospitalSeal:
    """One hospital's side of the sealed sums of one study.

    Args:
        identity: The hospital's own.
        roster: Signed by every member.
        study: Digest of the study's settings.
        threshold: Fewest hospitals whose sum this hospital helps to open; over half of the roster.
        value_bits: As the study says.
        ledger: From the last process; a new one for a new study.
        random: Source of all secrets.

    Raises:
        ProtocolError: The roster is not signed by all, or lists another key for this hospital; or the
            threshold is not over half of it.
    """

    def __init__(
        self,
        identity: Identity,
        roster: Roster,
        *,
        study: str,
        threshold: int,
        value_bits: int,
        ledger: Ledger | None = None,
        random: Random = os.urandom,
    ) -> None:
        roster.check()
        if roster.members.get(identity.name) != identity.public():
            raise ProtocolError(f"The roster does not list {identity.name} with its own key.")
        check_threshold(threshold, len(roster.members))
        self.ledger = Ledger(study) if ledger is None or ledger.study != study else ledger
        self._identity = identity
        self._roster = roster
        self._study = study
        self._threshold = threshold
        self._value_bits = value_bits
        self._random = random
        self._current: Session | None = None
        self._next: Session | None = None

    @property
    def name(self) -> str:
        """The hospital's name."""
        return self._identity.name

    def keys(self, content: bytes) -> bytes:
        """Answer a signed :class:`KeysRequest` with signed keys, from fresh secrets."""
        request = read_signed(content, KeysRequest, self._roster, COORDINATOR, most=MOST_SIGNED_BYTES)
        self._check_ours(request.stamp)
        self.ledger.check_forward(request.stamp)
        self._next = self._begin(request.stamp)
        return self._next.own_keys

    def shares(self, content: bytes) -> bytes:
        """Answer a signed :class:`SharesRequest` with signed shares for everybody whose keys it holds."""
        most = MOST_SIGNED_BYTES * (1 + len(self._roster.members))
        request = read_signed(content, SharesRequest, self._roster, COORDINATOR, most=most)
        self._check_ours(request.stamp)
        session = self._next
        if session is None or session.stamp != request.stamp:
            raise ProtocolError("Shares are asked for before keys.")
        return self._share(session, request.keys)

    def verify(self, seal: bytes, material: bytes, *, task: str, model: str = "") -> Ready:
        """Check the plan of a sum and everybody's keys and shares, before anything is computed.

        Args:
            seal: Signed :class:`SumPlan`.
            material: The :class:`Material` sent for this hospital.
            task: Digest of the request that was sealed, as this hospital found it.
            model: Digest of the weights in it.

        Raises:
            ProtocolError: Anything is not as it should be.
        """
        members = len(self._roster.members)
        plan = read_signed(
            seal, SumPlan, self._roster, COORDINATOR, most=MOST_SIGNED_BYTES + 4 * _MOST_ARRAYS
        )
        self._check_ours(plan.stamp)
        self.ledger.check_forward(plan.stamp)
        self._check_plan(plan, task)
        session = self._next
        if session is None or session.stamp != plan.stamp or not session.peers:
            raise ProtocolError("A plan came for a sum that this hospital has shared no seeds for.")
        if len(material) > MOST_SIGNED_BYTES * (2 * members + 1):
            raise ProtocolError(f"Material for a sum has {len(material)} bytes.")
        given = decode(material, Material)
        others = set(plan.participants) - {self.name}
        if set(given.keys) != set(plan.participants) or set(given.boxes) != others:
            raise ProtocolError("Keys and boxes are not just those of the plan's participants.")
        if keys_digest(given.keys) != plan.keys or any(
            session.peers.get(name) != content for name, content in given.keys.items()
        ):
            raise ProtocolError("Keys differ from those that this hospital shared its seeds for.")
        boxes = {
            name: read_box(given.boxes[name], plan.stamp, name, self.name, self._roster)
            for name in plan.participants
            if name != self.name
        }
        for box in boxes.values():
            open_box(session, box, self._roster)
        session.plan, session.plan_digest, session.model = plan, sha256(seal).hex(), model
        return Ready(plan, mask_seeds(session, boxes, self._roster, self.name))

    def seal(
        self,
        ready: Ready,
        values: Values,
        totals: Mapping[str, npt.ArrayLike],
        layout: Layout,
    ) -> tuple[SealedUpload, Encoded]:
        """Mask this hospital's numbers under a verified plan; each plan is used once.

        Args:
            ready: From :meth:`verify`.
            values: Floating part, finite.
            totals: Integers beside it.
            layout: Of the totals.

        Raises:
            ProtocolError: The plan was used already, or the numbers do not fit it.
        """
        session, plan = self._next, ready.plan
        if session is None or session.plan is not plan:
            raise ProtocolError("This plan was used already, or another one came since.")
        packed, total_bytes, encoded = seal_numbers(values, dict(totals), layout, plan, ready.seeds)
        payload = payload_digest(packed.data, total_bytes.data)
        receipt = Receipt(plan.stamp, self.name, session.plan_digest, payload)
        self.ledger = self.ledger.uploaded(plan.stamp)
        self._current, self._next = session, None
        next_keys = b""
        if plan.next_step:
            self._next = self._begin(next_stamp(plan))
            next_keys = self._next.own_keys
        upload = SealedUpload(sign(receipt, self._identity), packed.data, total_bytes.data, next_keys, 0.0)
        return upload, encoded

    def abandon(self, ready: Ready) -> None:
        """Give up a verified plan: nothing is uploaded for its sum any more, whatever is asked.

        A refusal tells one thing about this hospital's numbers. Asked again under another plan it would tell
        more.
        """
        self._next = None
        self.ledger = self.ledger.uploaded(ready.plan.stamp)

    def co_sign(self, content: bytes) -> bytes:
        """Answer a signed :class:`SurvivorsRequest` with this hospital's one signature under a list."""
        request = self._read_listing(content, SurvivorsRequest)
        session, _ = self._session(request.stamp)
        self._check_listing(session, request.survivors, request.dropped, request.receipts)
        session.chosen = request.survivors
        return sign(CoSignature(request.stamp, self.name, request.survivors, request.dropped), self._identity)

    def unmask(self, content: bytes) -> bytes:
        """Answer a signed :class:`UnmaskRequest` with shares, once for a sum."""
        request = self._read_listing(content, UnmaskRequest)
        session, plan = self._session(request.stamp)
        if session.opened:
            raise ProtocolError(
                f"The sum of round {plan.stamp.round} ({plan.stamp.step}) was opened already."
            )
        self._check_listing(session, request.survivors, request.dropped, request.receipts)
        if request.dropped:
            self._check_signatures(session, request)
        self.ledger.check_same_survivors(request.stamp, session.model, request.survivors)
        next_shares = self._next_shares(request.next_keys)
        session.chosen, session.opened = request.survivors, True
        self.ledger = self.ledger.with_opened(request.stamp, session.model, request.survivors)
        answer = Unmasking(
            request.stamp,
            self.name,
            self._shares_of(session, request.survivors, 0),
            self._shares_of(session, request.dropped, 1),
            next_shares,
        )
        return sign(answer, self._identity)

    def from_coordinator(self, content: bytes, kind: type[M], *, most: int) -> M:
        """A message of no sum that the coordinator signed.

        Args:
            content: As it came.
            kind: Which it must be.
            most: Bytes beyond which it is not even looked at.

        Raises:
            ProtocolError: Oversized, of another kind, or not signed by the coordinator.
        """
        return read_signed(content, kind, self._roster, COORDINATOR, most=most)

    def _next_shares(self, keys: Mapping[str, bytes]) -> bytes:
        """Shares for the next sum; nothing about that one may keep the present one closed."""
        if not keys or self._next is None:
            return b""
        try:
            return self._share(self._next, keys)
        except ProtocolError:
            # Keys are asked for anew then, and whoever sent unusable ones is named.
            return b""

    def _begin(self, stamp: Stamp) -> Session:
        return begin_session(stamp, self._identity, self._roster, self._threshold, self._random)

    def _check_ours(self, stamp: Stamp) -> None:
        position(stamp)
        expected = dataclasses.replace(stamp, study=self._study, roster=self._roster.digest)
        check_stamp(stamp, expected, COORDINATOR)

    def _share(self, session: Session, keys: Mapping[str, bytes]) -> bytes:
        if session.peers:
            raise ProtocolError("Seeds for this sum were shared already.")
        if keys.get(self.name) != session.own_keys:
            raise ProtocolError("The keys given as this hospital's are not its own.")
        if len(keys) < self._threshold:
            raise ProtocolError(
                f"Only {len(keys)} hospitals have made keys.", why=f"A sum takes {self._threshold} or more."
            )
        # Read before anything is kept, so that a refused request changes nothing.
        read = read_all_keys(keys, session.stamp, self._roster)
        known = dataclasses.replace(session, peers=dict(keys), read=read, encapsulated={})
        shared = share_out(known, self._identity, self._roster)
        session.peers, session.read, session.encapsulated = known.peers, known.read, known.encapsulated
        return shared

    def _check_plan(self, plan: SumPlan, task: str) -> None:
        names = plan.participants
        if not in_roster_order(names, self._roster) or self.name not in names:
            raise ProtocolError(
                "The plan's participants are not members of the roster in its order, this one among them."
            )
        if plan.threshold < self._threshold or len(names) < plan.threshold:
            raise ProtocolError(
                f"The plan sums {len(names)} hospitals with a threshold of {plan.threshold}.",
                why=f"This hospital takes part in sums of {self._threshold} or more only.",
            )
        if plan.value_bits not in (self._value_bits, WIDE_BITS):
            raise ProtocolError(
                f"The plan asks for values of {plan.value_bits} bits.",
                why=f"The study says {self._value_bits}.",
            )
        check_capacity(plan.value_bits, plan.ring_bits, len(names))
        ranges = plan.ranges.get("ranges")
        if ranges is None or len(plan.ranges) != 1 or ranges.dtype != np.float32 or ranges.ndim != 1:
            raise ProtocolError("The plan has no ranges.")
        if (
            not ((ranges >= _LEAST_RANGE).all() and (ranges <= _MOST_RANGE).all())
            or min(plan.values, plan.totals, plan.images) < 0
        ):
            raise ProtocolError("The plan's ranges or sizes are not positive numbers.")
        if plan.norm_bound < 0 or not math.isfinite(plan.norm_bound):
            raise ProtocolError("The plan's norm bound is no positive number.")
        if plan.task != task:
            raise ProtocolError(
                "The plan seals another request than the one that came with it.",
                why="Hospitals that compute different things must not be summed.",
            )
        if plan.next_step and position(next_stamp(plan)) <= position(plan.stamp):
            raise ProtocolError("The plan's next sum lies behind it.")

    def _read_listing(self, content: bytes, kind: type[L]) -> L:
        most = MOST_SIGNED_BYTES * (3 * len(self._roster.members) + 1)
        request = read_signed(content, kind, self._roster, COORDINATOR, most=most)
        self._check_ours(request.stamp)
        return request

    def _session(self, stamp: Stamp) -> tuple[Session, SumPlan]:
        session = self._current
        if session is None or session.plan is None or session.stamp != stamp:
            raise ProtocolError(f"This hospital has uploaded nothing for round {stamp.round} ({stamp.step}).")
        return session, session.plan

    def _check_listing(
        self,
        session: Session,
        survivors: tuple[str, ...],
        dropped: tuple[str, ...],
        receipts: Mapping[str, bytes],
    ) -> None:
        """Refuse any list but the one that all survivors can agree on."""
        plan = session.plan
        assert plan is not None
        if set(survivors) & set(dropped):
            raise ProtocolError(
                f"{sorted(set(survivors) & set(dropped))[0]} is listed as survivor and as dropped."
            )
        whole = [name for name in plan.participants if name in {*survivors, *dropped}]
        if whole != list(plan.participants) or len(survivors) + len(dropped) != len(whole):
            raise ProtocolError("Survivors and dropped hospitals are not the plan's participants.")
        if not in_roster_order(survivors, self._roster) or self.name not in survivors:
            raise ProtocolError("This hospital uploaded, but is not listed as a survivor in roster order.")
        if len(survivors) < plan.threshold:
            raise ProtocolError(
                f"Only {len(survivors)} hospitals are left.",
                why=f"The plan opens sums of {plan.threshold} or more.",
            )
        if session.chosen and session.chosen != survivors:
            raise ProtocolError(
                "Another list of survivors came for the same sum.",
                why="Two sums that differ by one hospital give its update away.",
            )
        if set(receipts) != set(survivors):
            raise ProtocolError("Receipts are not just those of the survivors.")
        for name, content in receipts.items():
            receipt = read_signed(content, Receipt, self._roster, name, most=MOST_SIGNED_BYTES)
            check_stamp(receipt.stamp, plan.stamp, name)
            if (receipt.hospital, receipt.plan) != (name, session.plan_digest):
                raise ProtocolError(f"{name} sealed its numbers under another plan.")

    def _check_signatures(self, session: Session, request: UnmaskRequest) -> None:
        """Where somebody dropped out, as many as the threshold must have signed this very list."""
        plan = session.plan
        assert plan is not None
        if not session.chosen or not set(request.signatures) <= set(request.survivors):
            raise ProtocolError("The list of survivors was not co-signed.")
        for name, content in request.signatures.items():
            signed = read_signed(content, CoSignature, self._roster, name, most=MOST_SIGNED_BYTES)
            check_stamp(signed.stamp, plan.stamp, name)
            if (signed.hospital, signed.survivors, signed.dropped) != (
                name,
                request.survivors,
                request.dropped,
            ):
                raise ProtocolError(f"{name} signed another list of survivors.")
        if len(request.signatures) < plan.threshold:
            raise ProtocolError(
                f"Only {len(request.signatures)} hospitals signed the list of survivors.",
                why=f"{plan.threshold} must have.",
            )

    def _shares_of(self, session: Session, names: tuple[str, ...], which: int) -> bytes:
        return b"".join(session.share_of(name, self._roster, self.name)[which] for name in names)


def check_threshold(threshold: int, members: int) -> None:
    """Refuse a threshold under which two disjoint groups could be shown different lists.

    Raises:
        ProtocolError: It is not over half of the roster, or larger than it.
    """
    if not members < 2 * threshold <= 2 * members:
        raise ProtocolError(
            f"A threshold of {threshold} among {members} hospitals cannot be used.",
            why=f"It must be from {members // 2 + 1}, over half of the roster, to {members}.",
            fix=f"Set sealing.threshold = 0, which takes {(members + 1) // 2 + 1}, and "
            f"federation.minimum_hospitals = {members} or fewer.",
        )


def payload_digest(values: bytes | memoryview, totals: bytes | memoryview) -> str:
    """SHA-256 that a receipt holds of masked values and totals, hexadecimal."""
    return sha256(sha256(values) + sha256(totals)).hex()
