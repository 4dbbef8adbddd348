"""What one hospital holds of one sealed sum: its secrets, the others' keys, and how far it is.

Nothing of it is ever written to disk: a hospital that dies has dropped out of the sum.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from fedlens.errors import ProtocolError
from fedlens.protocol.codec import read_signed, sign
from fedlens.protocol.keys import (
    KEM_TEXT_BYTES,
    PUBLIC_BYTES,
    SEED_BYTES,
    TAG_BYTES,
    HybridKey,
    check_public,
    decrypt,
    deposit,
    encapsulate,
    encrypt,
    fresh_seed,
    pair_secret,
)
from fedlens.protocol.messages import Box, Keys, Shares, Stamp, SumPlan
from fedlens.protocol.roster import Identity, Roster
from fedlens.protocol.shamir import Random, split_secret

MOST_SIGNED_BYTES = 1 << 16
"""No signed message but a plan, shares, or a request that holds others is longer."""

DIGEST_BYTES = 32


@dataclass
class Session:
    """One hospital's side of one sum.

    Attributes:
        stamp: Which sum.
        self_seed: Of the mask that is its own; shared, and revealed where it uploads.
        mask_seed: Of its mask key; shared, and revealed where it drops out.
        box_key: Decrypts the shares of others; never revealed.
        mask_key: Agrees on pairwise masks.
        own_keys: Its signed :class:`Keys`.
        all_shares: Shares of its own seeds for every roster index.
        peers: Signed :class:`Keys` by hospital, itself included, once they are known.
        read: The same, read.
        encapsulated: ML-KEM secrets for mask keys of hospitals later in the roster.
        received: Shares of the others' seeds by sender, self-mask seed first.
        plan: Once it uploads.
        plan_digest: SHA-256 of the signed plan.
        model: Digest of the weights that the sum is computed on.
        chosen: Survivors that it signed or opened for; only one choice is ever made.
        opened: Whether it has given shares.
    """

    stamp: Stamp
    self_seed: bytes
    mask_seed: bytes
    box_key: HybridKey
    mask_key: HybridKey
    own_keys: bytes
    all_shares: Mapping[int, tuple[bytes, bytes]]
    peers: Mapping[str, bytes] = field(default_factory=dict)
    read: Mapping[str, Keys] = field(default_factory=dict)
    encapsulated: dict[str, bytes] = field(default_factory=dict)
    received: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)
    plan: SumPlan | None = None
    plan_digest: str = ""
    model: str = ""
    chosen: tuple[str, ...] = ()
    opened: bool = False

    def share_of(self, name: str, roster: Roster, me: str) -> tuple[bytes, bytes]:
        """This hospital's shares of another's seeds, or of its own."""
        return self.all_shares[roster.index(me)] if name == me else self.received[name]


def begin_session(
    stamp: Stamp, identity: Identity, roster: Roster, threshold: int, random: Random
) -> Session:
    """Fresh secrets for one sum, and the keys and commitments that others may see."""
    self_seed, mask_seed, box_seed = (fresh_seed(random) for _ in range(3))
    indices = range(1, len(roster.members) + 1)
    halves = [
        split_secret(seed, threshold=threshold, indices=indices, random=random)
        for seed in (self_seed, mask_seed)
    ]
    commitments = b"".join(
        sha256(content)
        for seed, half in zip((self_seed, mask_seed), halves, strict=True)
        for content in (seed, *half.values())
    )
    box_key, mask_key = HybridKey.from_seed(box_seed, "box"), HybridKey.from_seed(mask_seed, "mask")
    keys = Keys(stamp, identity.name, box_key.public(), mask_key.public(), commitments)
    return Session(
        stamp=stamp,
        self_seed=self_seed,
        mask_seed=mask_seed,
        box_key=box_key,
        mask_key=mask_key,
        own_keys=sign(keys, identity),
        all_shares={index: (halves[0][index], halves[1][index]) for index in indices},
    )


def read_keys(content: bytes, stamp: Stamp, name: str, roster: Roster) -> Keys:
    """A hospital's keys for a sum.

    Raises:
        ProtocolError: Not signed by it, for another sum, or of other lengths.
    """
    keys = read_signed(content, Keys, roster, name, most=MOST_SIGNED_BYTES)
    check_stamp(keys.stamp, stamp, name)
    sizes = len(keys.box_key), len(keys.mask_key), len(keys.commitments)
    if keys.hospital != name or sizes != (
        PUBLIC_BYTES,
        PUBLIC_BYTES,
        2 * (1 + len(roster.members)) * DIGEST_BYTES,
    ):
        raise ProtocolError(f"The keys of {name} are malformed.")
    if keys.box_key == keys.mask_key:
        raise ProtocolError(f"The two keys of {name} are the same.")
    for key in (keys.box_key, keys.mask_key):
        check_public(key, name)
    return keys


def read_all_keys(contents: Mapping[str, bytes], stamp: Stamp, roster: Roster) -> dict[str, Keys]:
    """All participants' keys.

    Raises:
        ProtocolError: As for :func:`read_keys`, keys of a stranger, or two hospitals with one key.
    """
    strangers = contents.keys() - roster.members.keys()
    if strangers:
        raise ProtocolError(f"{min(strangers)[:40]} is no hospital of the roster, but has keys.")
    read = {name: read_keys(content, stamp, name, roster) for name, content in contents.items()}
    if len({key for keys in read.values() for key in (keys.box_key, keys.mask_key)}) != 2 * len(read):
        raise ProtocolError("Two of the keys for this sum are the same.", why="One hospital's were copied.")
    return read


def commitment(keys: Keys, which: int, index: int) -> bytes:
    """SHA-256 of a seed (index 0) or of its share for a roster index; ``which``: 0 self mask, 1 mask key."""
    place = (which * (len(keys.commitments) // 2)) + index * DIGEST_BYTES
    return keys.commitments[place : place + DIGEST_BYTES]


def share_out(session: Session, identity: Identity, roster: Roster) -> bytes:
    """Signed :class:`Shares` for all whose keys the session holds."""
    me = identity.name
    boxes = {}
    for name, keys in session.read.items():
        if name == me:
            continue
        secret, kem = encapsulate(keys.box_key)
        mask_kem = b""
        if roster.index(me) < roster.index(name):
            session.encapsulated[name], mask_kem = encapsulate(keys.mask_key)
        context = box_context(session.stamp, me, name, session.peers)
        key = pair_secret(session.box_key.agree(keys.box_key), secret, "box", context)
        text = encrypt(key, b"".join(session.all_shares[roster.index(name)]), context)
        boxes[name] = sign(Box(session.stamp, me, name, kem, mask_kem, text), identity)
    secrets = {roster.index(name): secret for name, secret in session.encapsulated.items()}
    kept = deposit(session.mask_seed, secrets, deposit_context(session.stamp, me))
    return sign(Shares(session.stamp, me, boxes, kept), identity)


def read_box(content: bytes, stamp: Stamp, sender: str, receiver: str, roster: Roster) -> Box:
    """A box as its sender signed it; its text stays closed.

    Raises:
        ProtocolError: Not signed by the sender, for another sum or receiver, or of other lengths.
    """
    box = read_signed(content, Box, roster, sender, most=MOST_SIGNED_BYTES)
    check_stamp(box.stamp, stamp, sender)
    first = roster.index(sender) < roster.index(receiver)
    sizes = (len(box.kem), len(box.mask_kem), len(box.text))
    expected = (KEM_TEXT_BYTES, KEM_TEXT_BYTES if first else 0, 2 * SEED_BYTES + TAG_BYTES)
    if (box.sender, box.receiver) != (sender, receiver) or sizes != expected:
        raise ProtocolError(f"The box from {sender} for {receiver} is malformed.")
    return box


def open_box(session: Session, box: Box, roster: Roster) -> None:
    """Take the shares out of a box, if they are what their sender committed to.

    Raises:
        ProtocolError: The box was altered, or holds other shares.
    """
    sender, me = box.sender, box.receiver
    keys = session.read[sender]
    context = box_context(session.stamp, sender, me, session.peers)
    secret = session.box_key.decapsulate(box.kem)
    key = pair_secret(session.box_key.agree(keys.box_key), secret, "box", context)
    plain = decrypt(key, box.text, context, f"the box from {sender}")
    shares = plain[:SEED_BYTES], plain[SEED_BYTES:]
    for which, share in enumerate(shares):
        if sha256(share) != commitment(keys, which, roster.index(me)):
            raise ProtocolError(f"The shares from {sender} are not those that it committed to.")
    session.received[sender] = shares


def mask_seeds(
    session: Session, boxes: Mapping[str, Box], roster: Roster, me: str
) -> list[tuple[bytes, int]]:
    """Seeds of all masks on this hospital's upload, and 1 to add or -1 to take off."""
    seeds = [(mask_seed_alone(session.self_seed, session.stamp, me), 1)]
    for name, box in boxes.items():
        first = roster.index(me) < roster.index(name)
        kem = session.encapsulated[name] if first else session.mask_key.decapsulate(box.mask_kem)
        x25519 = session.mask_key.agree(session.read[name].mask_key)
        seeds.append(pair_mask(x25519, kem, session.stamp, me, name, session.peers, roster))
    return seeds


def mask_seed_alone(self_seed: bytes, stamp: Stamp, name: str) -> bytes:
    """Seed of the keystream of a hospital's own mask."""
    return pair_secret(self_seed, b"", "self mask", context_of(stamp, name))


def pair_mask(
    x25519: bytes, kem: bytes, stamp: Stamp, me: str, other: str, peers: Mapping[str, bytes], roster: Roster
) -> tuple[bytes, int]:
    """Seed of the keystream that two hospitals share; 1 where ``me`` adds it, being earlier in the roster."""
    first, second = sorted((me, other), key=roster.index)
    seed = pair_secret(x25519, kem, "mask", box_context(stamp, first, second, peers))
    return seed, 1 if me == first else -1


def check_stamp(found: Stamp, expected: Stamp, sender: str) -> None:
    """Refuse a message of another sum.

    Raises:
        ProtocolError: Names the first field that differs.
    """
    for name, value in asdict(expected).items():
        got = getattr(found, name)
        if got != value:
            raise ProtocolError(
                f"A message of {sender} has {name} {str(got)[:12]!r}, not {str(value)[:12]!r}."
            )


def next_stamp(plan: SumPlan) -> Stamp:
    """Of the sum after a plan's, where it has one."""
    return replace(plan.stamp, round=plan.next_round, step=plan.next_step)


def keys_digest(keys: Mapping[str, bytes]) -> str:
    """SHA-256 over all participants' signed keys by name, hexadecimal."""
    return sha256(
        json.dumps([[name, sha256(content).hex()] for name, content in sorted(keys.items())]).encode()
    ).hex()


def box_context(stamp: Stamp, sender: str, receiver: str, peers: Mapping[str, bytes]) -> bytes:
    """Binds what two hospitals share to the sum, to both, and to the keys that both sent."""
    return context_of(stamp, sender, receiver, sha256(peers[sender]).hex(), sha256(peers[receiver]).hex())


def deposit_context(stamp: Stamp, name: str) -> bytes:
    """Binds a deposit to its sum and hospital."""
    return context_of(stamp, name)


def context_of(stamp: Stamp, *parts: str) -> bytes:
    """One unambiguous byte string of a stamp and texts."""
    return json.dumps([asdict(stamp), *parts], sort_keys=True).encode()


def in_roster_order(names: Sequence[str], roster: Roster) -> bool:
    """Whether names are distinct members in the roster's order."""
    wanted = [name for name in roster.members if name in set(names)]
    return wanted == list(names)


def sha256(content: bytes | memoryview) -> bytes:
    """SHA-256, 32 bytes."""
    return hashlib.sha256(content).digest()
