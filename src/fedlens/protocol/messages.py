"""Everything that leaves or enters a hospital, in one file.

There is no other way across the wall: no pixels, labels, file names or patient keys have a field here.
How messages become bytes stands in :mod:`fedlens.protocol.codec`; what is sealed and how in
``docs/protocol.md``. A *signed* message carries its sender's Ed25519 signature behind it.

A hospital that is a machine of its own first says :class:`Joined`. Of an unsealed study an
:class:`Update`, an :class:`Evaluation` and, where maps are measured, an :class:`Explanation` leave each
hospital every round, and an :class:`AdviceBasis` and :class:`AdviceScores` after the last. Of a sealed one
:class:`Keys`, :class:`Shares`, :class:`SealedUpload`, :class:`CoSignature` and :class:`Unmasking` do, from
which only sums over hospitals can be opened. Both say :class:`Noted` to what the hospitals' maps came to
together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy.typing as npt

Array = npt.NDArray[Any]
Parameters = dict[str, Array]
"""Named arrays of a network's state, buffers included; float32 or int64."""

Blobs = dict[str, bytes]
"""Whole messages by the name of the hospital that made them."""


@dataclass(frozen=True)
class JoinRequest:
    """Coordinator -> hospital: take part in this study, on a machine of your own.

    Sent once without signatures; in a sealed study once more with everybody's.

    Attributes:
        study: Digest of the study's settings.
        settings: The settings themselves as JSON, without paths.
        fingerprint: Architecture fingerprint of the network.
        keys: Public identity key of every hospital of the study by name.
        hospitals: Their order.
        coordinator: The coordinator's public identity key.
        signatures: Every hospital's signature over the roster of these keys; empty at first.
    """

    kind: ClassVar[str] = "join-request"
    study: str
    settings: str
    fingerprint: str
    hospitals: tuple[str, ...]
    coordinator: bytes
    keys: Blobs = field(repr=False)
    signatures: Blobs = field(repr=False)


@dataclass(frozen=True)
class Joined:
    """Hospital -> coordinator: I take part.

    Attributes:
        signature: Over the roster of the study's keys; nothing else about the hospital is told.
    """

    kind: ClassVar[str] = "joined"
    hospital: str
    study: str
    signature: bytes


@dataclass(frozen=True)
class RoundPlan:
    """What must not drift apart within a round; the same for every hospital.

    Attributes:
        study: Digest of the study's settings.
        round: From 1.
        rounds: Rounds of the whole study.
        fingerprint: Architecture fingerprint of the network.
        passes: Local passes over a hospital's training images in this round (may be a fraction).
        seed: Root of all of the round's randomness.
        learning_rate_start: Learning rate at the round's first local step.
        learning_rate_end: Learning rate after the round's last local step; steps between are
            interpolated linearly.
        proximal_mu: FedProx strength, 0 for none.
        personal: Full names of arrays that stay at home (FedBN): no update holds them. Requests
            hold the study's first values of them, from which a hospital's own ones start.
    """

    study: str
    round: int
    rounds: int
    fingerprint: str
    passes: float
    seed: int
    learning_rate_start: float
    learning_rate_end: float
    proximal_mu: float = 0.0
    personal: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainRequest:
    """Coordinator -> hospital: train from these weights.

    Attributes:
        seal: A signed :class:`SumPlan`: answer with a :class:`SealedUpload`. Empty: with an
            :class:`Update`.
    """

    kind: ClassVar[str] = "train-request"
    plan: RoundPlan
    parameters: Parameters = field(repr=False)
    seal: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class Update:
    """Hospital -> coordinator: local minus global weights after training, in the clear.

    Attributes:
        images: Training images behind the update (the FedAvg weight).
        loss_sum: Sum of the training loss over ``seen`` images.
        correct: Augmented training images classified rightly while training.
        seen: Images passed through training this round.
        seconds: Wall time of local training.
        delta: Difference for floating arrays; the plain local value for integer counters.
    """

    kind: ClassVar[str] = "update"
    hospital: str
    study: str
    round: int
    fingerprint: str
    images: int
    loss_sum: float
    correct: int
    seen: int
    seconds: float
    delta: Parameters = field(repr=False)


@dataclass(frozen=True)
class MeasureRequest:
    """What requests to measure weights on held-out images have in common; never sent as it is.

    Attributes:
        seal: A signed :class:`SumPlan`: answer with a :class:`SealedUpload`. Empty: in the clear.
    """

    study: str
    round: int
    fingerprint: str
    split: str
    parameters: Parameters = field(repr=False)
    seal: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class EvaluateRequest(MeasureRequest):
    """Coordinator -> hospital: measure these weights on your held-out images.

    In the clear the answer is an :class:`Evaluation`.
    """

    kind: ClassVar[str] = "evaluate-request"


@dataclass(frozen=True)
class ExplainRequest(MeasureRequest):
    """Coordinator -> hospital: explain your held-out images with these weights, and measure the maps.

    Method and measures are the study's. In the clear the answer is an :class:`Explanation`.
    """

    kind: ClassVar[str] = "explain-request"


@dataclass(frozen=True)
class BasisRequest(MeasureRequest):
    """Coordinator -> hospital: add up what temperature and likeness to the training images are fitted from.

    Of the likelihood of the held-out images, and of features and colours of the training images. In the
    clear the answer is an :class:`AdviceBasis`.
    """

    kind: ClassVar[str] = "basis-request"


@dataclass(frozen=True)
class ScoresRequest(MeasureRequest):
    """Coordinator -> hospital: count your held-out images by score, with what the first step came to.

    In the clear the answer is an :class:`AdviceScores`.

    Attributes:
        temperature: Divides logits.
        statistics: As :class:`~fedlens.decision.unlike.FeatureStatistics`, float32.
    """

    kind: ClassVar[str] = "scores-request"
    temperature: float = 1.0
    statistics: Parameters = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Evaluation:
    """Hospital -> coordinator: sums only, so that federation totals are sums of these; in the clear.

    Attributes:
        loss_sum: Sum of cross entropy over the images.
        counts: Arrays of counts. ``confusion``: (classes, classes) int64, rows true, columns
            predicted. ``positives`` and ``negatives``: (classes, bins) int64 histograms of the
            one-against-rest probability, from which AUROC is computed.
    """

    kind: ClassVar[str] = "evaluation"
    hospital: str
    study: str
    round: int
    fingerprint: str
    split: str
    loss_sum: float
    seconds: float
    counts: Parameters = field(repr=False)


@dataclass(frozen=True)
class Tally:
    """What answers in the clear have in common whose numbers are integers only; never sent as it is.

    Attributes:
        seconds: Wall time of the work behind them.
        counts: int64 arrays that add up over hospitals.
    """

    hospital: str
    study: str
    round: int
    fingerprint: str
    split: str
    seconds: float
    counts: Parameters = field(repr=False)


@dataclass(frozen=True)
class Explanation(Tally):
    """Hospital -> coordinator: sums and counts of explanation measures over images; in the clear.

    ``counts`` are ``sums`` and ``counts``, each (classes, columns), as in
    :class:`~fedlens.metrics.explanation_totals.QualityTotals`.
    """

    kind: ClassVar[str] = "explanation"


@dataclass(frozen=True)
class AdviceBasis(Tally):
    """Hospital -> coordinator: :class:`~fedlens.decision.totals.BasisTotals` in the clear."""

    kind: ClassVar[str] = "advice-basis"


@dataclass(frozen=True)
class AdviceScores(Tally):
    """Hospital -> coordinator: :class:`~fedlens.decision.totals.ScoreTotals` in the clear."""

    kind: ClassVar[str] = "advice-scores"


@dataclass(frozen=True)
class ExplanationTotals:
    """Coordinator -> hospital, signed in a sealed study: what the maps of all hospitals came to together.

    For those whose own numbers are in it, so that each can hold its own against the others'.

    Attributes:
        totals: As :attr:`Explanation.counts`, summed over hospitals.
    """

    kind: ClassVar[str] = "explanation-totals"
    study: str
    round: int
    totals: Parameters = field(repr=False)


@dataclass(frozen=True)
class Noted:
    """Hospital -> coordinator: the totals have arrived. What the hospital makes of them stays there."""

    kind: ClassVar[str] = "noted"
    hospital: str
    study: str
    round: int


@dataclass(frozen=True)
class Stamp:
    """Which sum a message belongs to; every signed message of a sealed study carries one.

    Attributes:
        study: Digest of the study's settings.
        roster: Digest of the roster.
        segment: Starts of the coordinator, from 1. A resumed study repeats a round in a new segment,
            with new keys.
        round: 0 for the enrolment, then from 1.
        step: What is summed: image counts (``enrol``), updates (``train``), counts of an evaluation
            (``evaluate``) or of measured maps (``explain``), or what advice is fitted from (``basis``, then
            ``scores``).
    """

    study: str
    roster: str
    segment: int
    round: int
    step: str


@dataclass(frozen=True)
class KeysRequest:
    """Coordinator -> hospital, signed: make keys for a sum."""

    kind: ClassVar[str] = "keys-request"
    stamp: Stamp


@dataclass(frozen=True)
class Keys:
    """Hospital -> all, signed: fresh public keys for one sum.

    Attributes:
        box_key: X25519 and ML-KEM-768 public keys that shares are encrypted to, 1216 bytes.
        mask_key: The same for pairwise masks.
        commitments: SHA-256 of the self-mask seed, then of its share for every hospital in roster
            order; then the same of the mask-key seed. 64 (1 + roster) bytes.
    """

    kind: ClassVar[str] = "keys"
    stamp: Stamp
    hospital: str
    box_key: bytes = field(repr=False)
    mask_key: bytes = field(repr=False)
    commitments: bytes = field(repr=False)


@dataclass(frozen=True)
class SharesRequest:
    """Coordinator -> hospital, signed: share your seeds with those whose keys these are."""

    kind: ClassVar[str] = "shares-request"
    stamp: Stamp
    keys: Blobs = field(repr=False)


@dataclass(frozen=True)
class Box:
    """Hospital -> hospital, signed: what only the receiver can read.

    Attributes:
        kem: ML-KEM ciphertext for the receiver's box key.
        mask_kem: ML-KEM ciphertext for its mask key; empty where the receiver stands earlier in the
            roster and encapsulates itself.
        text: Shares of both seeds, 64 bytes, under AES-256-GCM.
    """

    kind: ClassVar[str] = "box"
    stamp: Stamp
    sender: str
    receiver: str
    kem: bytes = field(repr=False)
    mask_kem: bytes = field(repr=False)
    text: bytes = field(repr=False)


@dataclass(frozen=True)
class Shares:
    """Hospital -> coordinator, signed: a box for every other hospital, and a deposit.

    Attributes:
        boxes: Signed :class:`Box` by receiver.
        deposit: Key secrets that this hospital encapsulated, encrypted under its mask seed.
    """

    kind: ClassVar[str] = "shares"
    stamp: Stamp
    hospital: str
    boxes: Blobs = field(repr=False)
    deposit: bytes = field(repr=False)


@dataclass(frozen=True)
class SumPlan:
    """Coordinator -> hospital, signed: what must be the same for everybody whose values are summed.

    Hospitals sign its digest with their upload and open the sum only if all signed the same one. So the
    coordinator cannot show one hospital another network, learning rate, range or set of keys.

    Attributes:
        participants: In roster order.
        threshold: Fewest hospitals in a sum that is opened.
        value_bits: Bits of one hospital's value.
        ring_bits: Bits of the sum.
        values: Number of values.
        totals: Number of 64-bit integers beside them.
        images: Training images of all hospitals together, by which weights are scaled; 0 where none
            are.
        norm_bound: Largest L2 norm of trained weights' change that a hospital may send.
        task: Digest of the request that this plan is the seal of.
        keys: Digest of all participants' keys.
        next_round: Round of the sum after this one; keys for it travel with this one's messages.
        next_step: Its step; empty where there is none.
        ranges: ``ranges``: float32 (arrays,), the largest magnitude of each array after weighting.
    """

    kind: ClassVar[str] = "sum-plan"
    stamp: Stamp
    participants: tuple[str, ...]
    threshold: int
    value_bits: int
    ring_bits: int
    values: int
    totals: int
    images: int
    norm_bound: float
    task: str
    keys: str
    next_round: int
    next_step: str
    ranges: Parameters = field(repr=False)


@dataclass(frozen=True)
class EnrolRequest:
    """Coordinator -> hospital: tell the sum of your image counts, before the first round."""

    kind: ClassVar[str] = "enrol-request"
    study: str
    fingerprint: str
    seal: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class Material:
    """Coordinator -> one hospital, beside a sealed request: what others sent for it.

    Attributes:
        keys: Signed :class:`Keys` by participant.
        boxes: Signed :class:`Box` for this hospital by sender.
    """

    kind: ClassVar[str] = "material"
    keys: Blobs = field(repr=False)
    boxes: Blobs = field(repr=False)


@dataclass(frozen=True)
class Receipt:
    """Hospital -> all, signed: what it uploaded and under which plan.

    Attributes:
        plan: SHA-256 of the signed plan.
        payload: SHA-256 of the masked values and totals.
    """

    kind: ClassVar[str] = "receipt"
    stamp: Stamp
    hospital: str
    plan: str
    payload: str


@dataclass(frozen=True)
class SealedUpload:
    """Hospital -> coordinator: masked values, uniformly random to whoever lacks the seeds.

    Attributes:
        receipt: Signed :class:`Receipt`.
        values: Packed words of ``ring_bits`` bits.
        totals: 64-bit words, little-endian.
        next_keys: Signed :class:`Keys` for the next sum; empty where there is none.
        sealing_seconds: Wall time of encoding and masking.
    """

    kind: ClassVar[str] = "sealed-upload"
    receipt: bytes = field(repr=False)
    values: memoryview = field(repr=False)
    totals: memoryview = field(repr=False)
    next_keys: bytes = field(repr=False)
    sealing_seconds: float


@dataclass(frozen=True)
class SurvivorsRequest:
    """Coordinator -> hospital, signed: these uploaded, those dropped out; sign it.

    Needed only where somebody dropped out.
    """

    kind: ClassVar[str] = "survivors-request"
    stamp: Stamp
    survivors: tuple[str, ...]
    dropped: tuple[str, ...]
    receipts: Blobs = field(repr=False)


@dataclass(frozen=True)
class CoSignature:
    """Hospital -> all, signed: the one list of survivors that this hospital will open a sum over."""

    kind: ClassVar[str] = "co-signature"
    stamp: Stamp
    hospital: str
    survivors: tuple[str, ...]
    dropped: tuple[str, ...]


@dataclass(frozen=True)
class UnmaskRequest:
    """Coordinator -> hospital, signed: give shares, so that the sum over these survivors can be opened.

    Attributes:
        receipts: Signed :class:`Receipt` of every survivor.
        signatures: Signed :class:`CoSignature` of at least the threshold; empty where nobody dropped.
        next_keys: Signed :class:`Keys` for the next sum, as for a :class:`SharesRequest`.
    """

    kind: ClassVar[str] = "unmask-request"
    stamp: Stamp
    survivors: tuple[str, ...]
    dropped: tuple[str, ...]
    receipts: Blobs = field(repr=False)
    signatures: Blobs = field(repr=False)
    next_keys: Blobs = field(repr=False)


@dataclass(frozen=True)
class Unmasking:
    """Hospital -> coordinator, signed: shares of survivors' self masks and of dropped hospitals' keys.

    Attributes:
        self_shares: Shares of the survivors' self-mask seeds, 32 bytes each, in the list's order.
        mask_shares: Shares of the dropped hospitals' mask-key seeds, likewise.
        next_shares: Signed :class:`Shares` for the next sum; empty where there is none.
    """

    kind: ClassVar[str] = "unmasking"
    stamp: Stamp
    hospital: str
    self_shares: bytes = field(repr=False)
    mask_shares: bytes = field(repr=False)
    next_shares: bytes = field(repr=False)
