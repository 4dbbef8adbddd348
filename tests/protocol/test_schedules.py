"""Whole sums under random drop-outs, reorderings, duplicates, damage and lies.

Whatever happens, a sum that is opened is exactly the sum over its survivors, and all that hospitals ever
reveal never suffices to unmask one of them.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from fedlens.errors import NotEnoughHospitalsError, ProtocolError
from fedlens.protocol.codec import decode, sign
from fedlens.protocol.encoding import Decoder, Encoder
from fedlens.protocol.messages import SurvivorsRequest, Unmasking, UnmaskRequest
from fedlens.protocol.roster import SIGNATURE_BYTES
from fedlens.protocol.sealed_sum import SealedSum
from fedlens.protocol.vectors import Opened

from .federation import REACH, Federation, totals_of

STAGES = ("keys", "shares", "upload", "co-sign", "unmask", "never")


class Schedule:
    """One random course of a sum.

    Args:
        seed: All of the course follows from it, but for the secrets.
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        count = int(self.rng.integers(3, 13))
        bits = int(self.rng.choice([8, 12, 16, 20, 24, 32]))
        self.federation = Federation("ABCDEFGHIJKL"[:count], size=10, value_bits=bits, seed=seed)
        quiet = self.rng.random() < 0.3
        odds = np.array([0.05, 0.05, 0.08, 0.03, 0.06, 0.0])
        odds = np.append(odds[:5] * (0.2 if quiet else 1.0), 0.0)
        odds[5] = 1 - odds.sum()
        self.gone = {name: STAGES[self.rng.choice(6, p=odds)] for name in self.federation.hospitals}
        self.damage = 0.0 if quiet else 0.1
        self.old: list[bytes] = []
        self.revealed: dict[tuple[str, str], set[str]] = defaultdict(set)
        self.opened_lists: set[tuple[str, ...]] = set()

    def there(self, names: Iterable[str], stage: str) -> list[str]:
        """Who still answers at a stage, in random order."""
        left = [name for name in names if STAGES.index(self.gone[name]) > STAGES.index(stage)]
        return [left[place] for place in self.rng.permutation(len(left))]

    def exchange(
        self,
        names: Iterable[str],
        request: bytes,
        ask: Callable[[str, bytes], bytes],
        take: Callable[[str, bytes], object],
    ) -> None:
        """Requests and answers, some of them damaged, doubled or mixed up, before the right ones come."""
        for name in names:
            for _ in range(int(self.rng.integers(0, 3)) if self.damage else 0):
                refused(lambda name=name: ask(name, self.damaged(request)))
            try:
                answer = ask(name, request)
            except ProtocolError:
                continue  # It had answered a damaged request that was none.
            if self.rng.random() < self.damage:
                refused(lambda name=name: ask(name, request))
            self.old.append(answer)
            if self.rng.random() < self.damage:
                refused(lambda name=name, answer=answer: take(name, self.damaged(answer)))
                refused(lambda name=name: take(name, self.old[int(self.rng.integers(len(self.old)))]))
            refused(lambda name=name, answer=answer: take(name, answer))
            if self.rng.random() < self.damage:
                refused(lambda name=name, answer=answer: take(name, answer))

    def damaged(self, content: bytes) -> bytes:
        """A message after an accident, or another message."""
        kind = self.rng.integers(4)
        if kind == 0 and self.old:
            return self.old[int(self.rng.integers(len(self.old)))]
        if kind == 1:
            return content[: int(self.rng.integers(len(content)))]
        if kind == 2:
            return content + bytes(1)
        flipped = bytearray(content)
        flipped[int(self.rng.integers(len(flipped)))] ^= 1 << int(self.rng.integers(8))
        return bytes(flipped)

    def lie(self, current: SealedSum, names: list[str]) -> None:
        """The coordinator tries to have some other list signed or opened."""
        participants = list(current.plan.participants)
        kept = sorted(self.rng.choice(participants, int(self.rng.integers(1, len(participants) + 1)), False))
        survivors = tuple(name for name in participants if name in kept)
        dropped = tuple(name for name in participants if name not in kept or self.rng.random() < 0.05)
        receipts = {name: current._receipts[name] for name in survivors if name in current._receipts}
        liar = self.federation.coordinator
        for name in names:
            hospital = self.federation.hospitals[name]
            asked = SurvivorsRequest(current.stamp, survivors, dropped, receipts)
            signature = refused(lambda h=hospital, a=asked: h.co_sign(sign(a, liar)))
            if signature is not None:
                current._signatures[name] = signature
            signatures = {key: value for key, value in current._signatures.items() if key in survivors}
            lie = UnmaskRequest(current.stamp, survivors, dropped, receipts, signatures, {})
            self.unmask(name, sign(lie, liar))

    def unmask(self, name: str, request: bytes) -> bytes | None:
        """Ask for shares and note everything that a coordinator learns from the answer."""
        answer = refused(lambda: self.federation.hospitals[name].unmask(request))
        if answer is not None:
            asked = decode(request[:-SIGNATURE_BYTES], UnmaskRequest)
            told = decode(answer[:-SIGNATURE_BYTES], Unmasking)
            assert len(told.self_shares) == 32 * len(asked.survivors)
            for owner in asked.survivors:
                self.revealed[owner, "self"].add(name)
            for owner in asked.dropped:
                self.revealed[owner, "mask"].add(name)
            self.opened_lists.add(asked.survivors)
        return answer

    def run(self) -> tuple[SealedSum, Opened]:
        """The whole course.

        Raises:
            NotEnoughHospitalsError: Too few were left at some stage.
            ProtocolError: The lies had brought hospitals to answer for another list.
        """
        federation = self.federation
        hospitals = federation.hospitals
        current = federation.begin()
        names = self.there(hospitals, "keys")
        self.exchange(names, current.keys_request(), lambda n, r: hospitals[n].keys(r), current.take_keys)
        names = self.there(current.with_keys, "shares")
        request = current.shares_request()
        self.exchange(names, request, lambda n, r: hospitals[n].shares(r), current.take_shares)
        seal = federation.planned(current)
        names = self.there(current.with_shares, "upload")
        self.exchange(names, seal, lambda n, r: federation.upload(current, r, n), current.take_upload)
        lying = self.rng.random() < 0.3
        if lying:
            self.lie(current, self.there(current.uploaded, "upload"))
        current.close()
        if current.dropped:
            names = self.there(current.survivors, "co-sign")
            request = current.survivors_request()
            self.exchange(names, request, lambda n, r: hospitals[n].co_sign(r), current.take_signature)
        request = current.unmask_request()
        for name in self.there(current.survivors, "unmask"):
            answer = self.unmask(name, request)
            if answer is not None:
                current.take_unmasking(name, answer)
        return current, current.open()

    def expected(self, names: Iterable[str], ring: int) -> np.ndarray:
        """The sum of these hospitals' encoded updates, computed without any mask."""
        federation = self.federation
        words = np.zeros(10, np.uint64)
        for name in names:
            sizes = [array.size for array in federation.updates[name].values()]
            encoder = Encoder(
                sizes,
                np.full(2, REACH),
                value_bits=federation.value_bits,
                ring=40,
                weight=1.0,
                seed=name.encode().ljust(32),
            )
            flat = np.concatenate([array.ravel() for array in federation.updates[name].values()])
            words += encoder.encode(flat, 0)
        count = len(list(names))
        decoder = Decoder(
            sizes, np.full(2, REACH), value_bits=federation.value_bits, ring=ring, hospitals=count
        )
        out = np.empty(len(words), decoder.type)
        decoder.decode(words, 0, out)
        return out


def refused(act: Callable[[], bytes | object]) -> bytes | None:
    """What an act gives, or None where it is refused; any other exception escapes and fails the test."""
    try:
        answer = act()
    except ProtocolError:
        return None
    return answer if isinstance(answer, bytes) else None


def check(seed: int) -> bool:
    """Run one schedule; whether its sum was opened."""
    schedule = Schedule(seed)
    threshold = schedule.federation.threshold
    try:
        current, opened = schedule.run()
    except (NotEnoughHospitalsError, ProtocolError):
        current = None
    for name in schedule.federation.hospitals:
        unmasked = len(schedule.revealed[name, "self"]) >= threshold
        followed = len(schedule.revealed[name, "mask"]) >= threshold
        assert not (unmasked and followed), f"schedule {seed} gives away {name}"
    # Of all lists that hospitals answered for, at most one can have reached the threshold.
    reached = {
        name for name in schedule.federation.hospitals if len(schedule.revealed[name, "self"]) >= threshold
    }
    assert not reached or len(reached) >= threshold, f"schedule {seed} opens a sum of {sorted(reached)}"
    if current is None:
        return False
    assert len(current.survivors) >= threshold
    np.testing.assert_array_equal(opened.values, schedule.expected(current.survivors, current.plan.ring_bits))
    assert totals_of(opened)["images"] == sum(schedule.federation.images[name] for name in current.survivors)
    return True


def test_random_schedules() -> None:
    outcomes = [check(seed) for seed in range(100)]
    assert 30 < sum(outcomes) < 100, "schedules that all end alike prove little"


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_two_thousand_random_schedules() -> None:
    outcomes = [check(seed) for seed in range(1000, 3000)]
    assert 600 < sum(outcomes) < 2000


def test_the_courses_differ() -> None:
    courses = [Schedule(seed) for seed in range(40)]
    assert len({len(course.federation.hospitals) for course in courses}) > 6
    assert {stage for course in courses for stage in course.gone.values()} == set(STAGES)
    assert dataclasses.is_dataclass(courses[0].federation.settings())
