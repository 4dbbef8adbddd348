"""The coordinator's state machine for one sealed sum: it collects, adds, and opens the sum once.

It holds one running sum, whatever the number of hospitals, and the small messages of each. Whatever a
hospital sends, the machine takes it or raises a :class:`~fedlens.errors.ProtocolError` that names the
hospital, and is as it was before. It opens no connection and reads no clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedlens.errors import NotEnoughHospitalsError, ProtocolError
from fedlens.protocol.codec import decode, encode, read_signed, sign
from fedlens.protocol.encoding import ring_bits
from fedlens.protocol.keys import SEED_BYTES, HybridKey, open_deposit
from fedlens.protocol.messages import (
    Blobs,
    Box,
    CoSignature,
    Keys,
    KeysRequest,
    Material,
    Receipt,
    SealedUpload,
    Shares,
    SharesRequest,
    Stamp,
    SumPlan,
    SurvivorsRequest,
    Unmasking,
    UnmaskRequest,
)
from fedlens.protocol.roster import Identity, Roster
from fedlens.protocol.sealed_hospital import payload_digest
from fedlens.protocol.session import (
    MOST_SIGNED_BYTES,
    check_stamp,
    commitment,
    deposit_context,
    keys_digest,
    mask_seed_alone,
    next_stamp,
    pair_mask,
    read_box,
    read_keys,
    sha256,
)
from fedlens.protocol.shamir import join_shares
from fedlens.protocol.vectors import Opened, RunningSum


@dataclass(frozen=True)
class SumSettings:
    """What one sum is over.

    Attributes:
        value_bits: Bits of one hospital's value.
        sizes: Elements of each array of values.
        ranges: float32 (arrays,).
        totals: Number of 64-bit integers.
        images: As in :class:`~fedlens.protocol.messages.SumPlan`.
        norm_bound: As there.
        next_stamp: The sum after this one, if keys for it shall travel with this one's messages.
    """

    value_bits: int
    sizes: Sequence[int] = ()
    ranges: np.ndarray[Any, np.dtype[np.float32]] = field(default_factory=lambda: np.zeros(0, np.float32))
    totals: int = 0
    images: int = 0
    norm_bound: float = 0.0
    next_stamp: Stamp | None = None


class SealedSum:
    """One sum, from keys to the opened numbers.

    Args:
        stamp: Which sum.
        roster: All members.
        identity: The coordinator's own.
        threshold: Fewest hospitals in a sum that is opened.
    """

    def __init__(self, stamp: Stamp, roster: Roster, identity: Identity, threshold: int) -> None:
        self.stamp = stamp
        self.threshold = threshold
        self._roster = roster
        self._identity = identity
        self._keys: dict[str, bytes] = {}
        self._read: dict[str, Keys] = {}
        self._boxes: dict[str, dict[str, bytes]] = {}
        self._deposits: dict[str, bytes] = {}
        self._plan: SumPlan | None = None
        self._seal = b""
        self._sizes: Sequence[int] = ()
        self._running: RunningSum | None = None
        self._receipts: dict[str, bytes] = {}
        self._survivors: tuple[str, ...] | None = None
        self._signatures: dict[str, bytes] = {}
        self._shares: dict[str, dict[int, bytes]] = {}
        self._unmasked: set[str] = set()
        self.next_keys: dict[str, bytes] = {}
        self.next_shares: dict[str, bytes] = {}

    @property
    def with_keys(self) -> tuple[str, ...]:
        """Hospitals whose keys are here, in roster order."""
        return self._in_order(self._keys)

    @property
    def with_shares(self) -> tuple[str, ...]:
        """Hospitals that have shared their seeds, in roster order: they can take part."""
        return self._in_order(self._boxes)

    @property
    def plan(self) -> SumPlan:
        """The plan, once it is made.

        Raises:
            ProtocolError: It is not.
        """
        if self._plan is None:
            raise ProtocolError("The sum has no plan yet.")
        return self._plan

    @property
    def uploaded(self) -> tuple[str, ...]:
        """Hospitals whose upload is in the running sum, in roster order."""
        return self._in_order(self._receipts)

    @property
    def survivors(self) -> tuple[str, ...]:
        """Hospitals that the sum is over, once no more uploads are taken."""
        if self._survivors is None:
            raise ProtocolError("Uploads are still taken.")
        return self._survivors

    @property
    def dropped(self) -> tuple[str, ...]:
        """Participants that did not upload."""
        return tuple(name for name in self.plan.participants if name not in self.survivors)

    def keys_request(self) -> bytes:
        """Ask for keys."""
        return sign(KeysRequest(self.stamp), self._identity)

    def take_keys(self, name: str, content: bytes) -> None:
        """A hospital's signed keys."""
        read = read_keys(content, self.stamp, name, self._roster)
        if name in self._keys or self._boxes:
            raise ProtocolError(f"Keys of {name} came twice, or too late.")
        taken = {key for other in self._read.values() for key in (other.box_key, other.mask_key)}
        if taken & {read.box_key, read.mask_key}:
            raise ProtocolError(f"{name} has signed another hospital's keys as its own.")
        self._keys[name], self._read[name] = content, read

    def shares_request(self) -> bytes:
        """Ask all whose keys are here to share their seeds among themselves.

        Raises:
            NotEnoughHospitalsError: They are fewer than the threshold.
        """
        self._require(self.with_keys, "made keys")
        return sign(SharesRequest(self.stamp, dict(self._keys)), self._identity)

    def take_shares(self, name: str, content: bytes) -> None:
        """A hospital's signed shares."""
        most = MOST_SIGNED_BYTES * (1 + len(self._roster.members))
        shares = read_signed(content, Shares, self._roster, name, most=most)
        check_stamp(shares.stamp, self.stamp, name)
        if shares.hospital != name or name in self._boxes or self._plan is not None:
            raise ProtocolError(f"Shares of {name} came twice, too late, or in another's name.")
        if name not in self._keys or set(shares.boxes) != set(self._keys) - {name}:
            raise ProtocolError(f"Shares of {name} are not for just those whose keys it was given.")
        for receiver, box in shares.boxes.items():
            read_box(box, self.stamp, name, receiver, self._roster)
        self._boxes[name] = shares.boxes
        self._deposits[name] = shares.deposit

    def make_plan(self, settings: SumSettings, *, task: str) -> bytes:
        """Fix what is summed and over whom; the signed plan is the seal of the request.

        Args:
            settings: What is summed.
            task: Digest of the request, without its seal.

        Raises:
            NotEnoughHospitalsError: Fewer than the threshold have shared their seeds.
        """
        names = self.with_shares
        self._require(names, "shared their seeds")
        following = settings.next_stamp
        self._plan = SumPlan(
            stamp=self.stamp,
            participants=names,
            threshold=self.threshold,
            value_bits=settings.value_bits,
            ring_bits=ring_bits(settings.value_bits, len(names)),
            values=sum(settings.sizes),
            totals=settings.totals,
            images=settings.images,
            norm_bound=settings.norm_bound,
            task=task,
            keys=keys_digest({name: self._keys[name] for name in names}),
            next_round=following.round if following else 0,
            next_step=following.step if following else "",
            ranges={"ranges": settings.ranges},
        )
        self._seal = sign(self._plan, self._identity)
        self._sizes = settings.sizes
        self._running = RunningSum(self._plan)
        return self._seal

    def material(self, name: str) -> bytes:
        """What one participant needs of the others."""
        names = self.plan.participants
        boxes = {sender: self._boxes[sender][name] for sender in names if sender != name}
        return encode(Material({other: self._keys[other] for other in names}, boxes))

    def take_upload(self, name: str, content: bytes) -> SealedUpload:
        """Add one hospital's masked numbers to the running sum."""
        plan, running = self.plan, self._running
        if self._survivors is not None or running is None:
            raise ProtocolError(f"The upload of {name} came too late: it was declared dropped.")
        if name not in plan.participants or name in self._receipts:
            raise ProtocolError(f"An upload of {name} was not asked for, or came twice.")
        upload = decode(content, SealedUpload)
        receipt = read_signed(upload.receipt, Receipt, self._roster, name, most=MOST_SIGNED_BYTES)
        check_stamp(receipt.stamp, self.stamp, name)
        if (receipt.hospital, receipt.plan) != (name, sha256(self._seal).hex()):
            raise ProtocolError(f"{name} sealed its numbers under another plan.")
        running.check(upload.values, upload.totals)
        if receipt.payload != payload_digest(upload.values, upload.totals):
            raise ProtocolError(f"The upload of {name} is not what it signed.")
        if not upload.sealing_seconds >= 0:
            raise ProtocolError(f"The upload of {name} took {upload.sealing_seconds} seconds.")
        if upload.next_keys:
            read_keys(upload.next_keys, next_stamp(plan), name, self._roster)
            self.next_keys[name] = upload.next_keys
        running.add(upload.values, upload.totals)
        self._receipts[name] = upload.receipt
        return upload

    def close(self) -> None:
        """Take no more uploads: who has not uploaded has dropped out.

        Raises:
            NotEnoughHospitalsError: Fewer survivors than the threshold; nothing is opened.
        """
        self._require(self.uploaded, "uploaded")
        self._survivors = self.uploaded

    def survivors_request(self) -> bytes:
        """Ask survivors to sign their list; needed only where somebody dropped out."""
        return sign(
            SurvivorsRequest(self.stamp, self.survivors, self.dropped, dict(self._receipts)), self._identity
        )

    def take_signature(self, name: str, content: bytes) -> None:
        """A survivor's signature under the list."""
        signed = read_signed(content, CoSignature, self._roster, name, most=MOST_SIGNED_BYTES)
        check_stamp(signed.stamp, self.stamp, name)
        if (signed.hospital, signed.survivors, signed.dropped) != (name, self.survivors, self.dropped):
            raise ProtocolError(f"{name} signed another list of survivors.")
        if name not in self.survivors:
            raise ProtocolError(f"{name} is no survivor.")
        self._signatures[name] = content

    def unmask_request(self, *, with_next: bool = True) -> bytes:
        """Ask survivors for shares.

        Args:
            with_next: Whether to have them share their seeds for the next sum too.

        Raises:
            NotEnoughHospitalsError: Somebody dropped out and too few signed the list.
        """
        if self.dropped:
            self._require(self._in_order(self._signatures), "signed the list of survivors")
        next_keys: Blobs = dict(self.next_keys) if with_next and len(self.next_keys) >= self.threshold else {}
        return sign(
            UnmaskRequest(
                self.stamp,
                self.survivors,
                self.dropped,
                dict(self._receipts),
                dict(self._signatures),
                next_keys,
            ),
            self._identity,
        )

    def take_unmasking(self, name: str, content: bytes) -> None:
        """A survivor's shares, each held against what was committed to."""
        most = MOST_SIGNED_BYTES * (2 + len(self._roster.members))
        answer = read_signed(content, Unmasking, self._roster, name, most=most)
        check_stamp(answer.stamp, self.stamp, name)
        if answer.hospital != name or name not in self.survivors or name in self._unmasked:
            raise ProtocolError(f"Shares of {name} were not asked for, or came twice.")
        index = self._roster.index(name)
        wanted = ((answer.self_shares, self.survivors, 0), (answer.mask_shares, self.dropped, 1))
        taken: list[tuple[str, bytes]] = []
        for content_of, owners, which in wanted:
            if len(content_of) != len(owners) * SEED_BYTES:
                raise ProtocolError(f"{name} sent {len(content_of)} bytes as {len(owners)} shares.")
            for place, owner in enumerate(owners):
                share = content_of[place * SEED_BYTES : (place + 1) * SEED_BYTES]
                if sha256(share) != commitment(self._read[owner], which, index):
                    raise ProtocolError(f"{name} sent a false share of {owner}'s seed.")
                taken.append((owner, share))
        for owner, share in taken:
            self._shares.setdefault(owner, {})[index] = share
        self._unmasked.add(name)
        if answer.next_shares:
            self.next_shares[name] = answer.next_shares

    @property
    def unmasked(self) -> tuple[str, ...]:
        """Survivors that gave their shares, in roster order."""
        return self._in_order(self._unmasked)

    def open(self) -> Opened:
        """The sum over the survivors, with every mask off; ends this object's use.

        Raises:
            NotEnoughHospitalsError: Fewer survivors than the threshold gave shares; nothing is revealed.
            ProtocolError: A seed is not the one that was committed to.
        """
        self._require(self.unmasked, "gave their shares")
        running, self._running = self._running, None
        if running is None:
            raise ProtocolError("The sum was opened already.")
        return running.open(self._mask_seeds(), self._sizes, len(self.survivors))

    def _mask_seeds(self) -> Iterator[tuple[bytes, int]]:
        """Seeds of all masks that are left in the sum, with the opposite sign."""
        for name in self.survivors:
            yield mask_seed_alone(self._seed(name, 0), self.stamp, name), -1
        for name in self.dropped:
            yield from self._left_by(name)

    def _left_by(self, dropped: str) -> Iterator[tuple[bytes, int]]:
        """Masks that survivors added for a hospital that dropped out."""
        seed = self._seed(dropped, 1)
        key = HybridKey.from_seed(seed, "mask")
        if key.public() != self._read[dropped].mask_key:
            raise ProtocolError(f"The mask key of {dropped} does not follow from its seed.")
        own = open_deposit(seed, self._deposits[dropped], deposit_context(self.stamp, dropped), dropped)
        for survivor in self.survivors:
            index = self._roster.index(survivor)
            first = self._roster.index(dropped) < index
            if first and index not in own:
                raise ProtocolError(f"The deposit of {dropped} lacks its secret with {survivor}.")
            kem = own[index] if first else key.decapsulate(self._box(survivor, dropped).mask_kem)
            x25519 = key.agree(self._read[survivor].mask_key)
            mask, sign_of = pair_mask(x25519, kem, self.stamp, survivor, dropped, self._keys, self._roster)
            yield mask, -sign_of

    def _box(self, sender: str, receiver: str) -> Box:
        return read_box(self._boxes[sender][receiver], self.stamp, sender, receiver, self._roster)

    def _seed(self, owner: str, which: int) -> bytes:
        shares = dict(list(self._shares.get(owner, {}).items())[: self.threshold])
        seed = join_shares(shares)
        if sha256(seed) != commitment(self._read[owner], which, 0):
            raise ProtocolError(f"The seed of {owner} is not the one that it committed to.")
        return seed

    def _require(self, names: Sequence[str], what: str) -> None:
        if len(names) < self.threshold:
            raise NotEnoughHospitalsError(
                f"Round {self.stamp.round} ({self.stamp.step}): only {len(names)} hospitals {what}.",
                why=f"A sealed sum is opened over {self.threshold} or more, so nothing was revealed.",
                fix="Mend the missing hospitals, then go on with --resume.",
            )

    def _in_order(self, names: Mapping[str, Any] | set[str]) -> tuple[str, ...]:
        return tuple(name for name in self._roster.members if name in names)
