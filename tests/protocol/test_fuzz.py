"""Damaged and made-up content for every decoder: only the protocol's own error may come of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedlens.errors import ProtocolError
from fedlens.protocol.codec import decode, encode, kind_of
from fedlens.protocol.ledger import Ledger
from fedlens.protocol.messages import (
    AdviceBasis,
    AdviceScores,
    BasisRequest,
    Box,
    CoSignature,
    EnrolRequest,
    EvaluateRequest,
    Evaluation,
    ExplainRequest,
    Explanation,
    ExplanationTotals,
    Keys,
    KeysRequest,
    Material,
    Noted,
    Receipt,
    RoundPlan,
    ScoresRequest,
    SealedUpload,
    Shares,
    SharesRequest,
    SumPlan,
    SurvivorsRequest,
    TrainRequest,
    Unmasking,
    UnmaskRequest,
    Update,
)
from fedlens.protocol.roster import SIGNATURE_BYTES

from .federation import TASK, Federation

_WORDS = (
    b"null",
    b"1e999",
    b"-1",
    b'""',
    b"[]",
    b"{}",
    b"true",
    b"\x00" * 8,
    b"\xff" * 8,
    b"9" * 40,
    b'"F64"',
)


def samples() -> dict[type[Any], bytes]:
    """One honest message of every kind, without its signature."""
    federation = Federation("ABC", size=6)
    current = federation.begin()
    found: dict[type[Any], bytes] = {KeysRequest: current.keys_request()}
    for name, hospital in federation.hospitals.items():
        found[Keys] = hospital.keys(found[KeysRequest])
        current.take_keys(name, found[Keys])
    found[SharesRequest] = current.shares_request()
    for name, hospital in federation.hospitals.items():
        found[Shares] = hospital.shares(found[SharesRequest])
        current.take_shares(name, found[Shares])
    found[SumPlan] = federation.planned(current)
    found[Material] = current.material("A") + bytes(SIGNATURE_BYTES)
    found[Box] = next(iter(decode(current.material("A"), Material).boxes.values()))
    for name in "AB":
        content = federation.upload(current, found[SumPlan], name)
        current.take_upload(name, content)
        found[SealedUpload] = content + bytes(SIGNATURE_BYTES)
    found[Receipt] = current._receipts["A"]
    current.close()
    found[SurvivorsRequest] = current.survivors_request()
    for name in "AB":
        found[CoSignature] = federation.hospitals[name].co_sign(found[SurvivorsRequest])
        current.take_signature(name, found[CoSignature])
    found[UnmaskRequest] = current.unmask_request()
    found[Unmasking] = federation.hospitals["A"].unmask(found[UnmaskRequest])
    bare = {kind: content[:-SIGNATURE_BYTES] for kind, content in found.items()}
    arrays = {"w": np.ones((2, 2), np.float32), "count": np.array(3, np.int64)}
    plan = RoundPlan("s", 1, 2, "f", 0.5, 0, 0.1, 0.1, personal=("norm.weight",))
    for message in (
        TrainRequest(plan, arrays, b"seal"),
        Update("A", "s", 1, "f", 3, 1.5, 2, 3, 0.1, arrays),
        EvaluateRequest("s", 1, "f", "validation", arrays, b"seal"),
        ExplainRequest("s", 1, "f", "validation", arrays, b"seal"),
        Explanation("A", "s", 1, "f", "validation", 0.1, {"sums": np.eye(2, dtype=np.int64)}),
        ExplanationTotals("s", 1, {"sums": np.eye(2, dtype=np.int64)}),
        Noted("A", "s", 1),
        BasisRequest("s", 1, "f", "validation", arrays, b"seal"),
        AdviceBasis("A", "s", 1, "f", "validation", 0.1, {"losses": np.ones(3, np.int64)}),
        ScoresRequest("s", 1, "f", "validation", arrays, b"seal", 1.5, {"means": arrays["w"]}),
        AdviceScores("A", "s", 1, "f", "validation", 0.1, {"lac": np.eye(2, dtype=np.int64)}),
        Evaluation("A", "s", 1, "f", "validation", 1.5, 0.1, {"confusion": np.eye(2, dtype=np.int64)}),
        EnrolRequest("s", "f", b"seal"),
    ):
        bare[type(message)] = encode(message)
    return bare


SAMPLES = samples()


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """A message after one to four accidents."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        place = int(rng.integers(len(changed) + 1))
        match int(rng.integers(6)):
            case 0:
                changed[place : place + 1] = bytes([int(rng.integers(256))])
            case 1:
                del changed[place : place + int(rng.integers(1, 40))]
            case 2:
                changed[place:place] = rng.bytes(int(rng.integers(1, 20)))
            case 3:
                word = _WORDS[int(rng.integers(len(_WORDS)))]
                changed[place : place + len(word)] = word
            case 4:
                other = list(SAMPLES.values())[int(rng.integers(len(SAMPLES)))]
                start = int(rng.integers(len(other)))
                changed[place : place + 30] = other[start : start + 30]
            case _:
                changed[:8] = int(rng.integers(2**62)).to_bytes(8, "little")
    return bytes(changed)


def only_refuses(act: Callable[[], object]) -> bool:
    """Whether an act is refused; any other exception escapes."""
    try:
        act()
    except ProtocolError:
        return True
    return False


def fuzz(count: int, seed: int) -> tuple[int, int]:
    """Decode so many damaged messages; how many were refused and how many read."""
    rng = np.random.default_rng(seed)
    kinds = list(SAMPLES)
    refused = 0
    for number in range(count):
        kind = kinds[number % len(kinds)]
        content = damaged(SAMPLES[kind], rng)
        refused += only_refuses(lambda content=content, kind=kind: decode(content, kind))
        only_refuses(lambda content=content: kind_of(content))
    return refused, count - refused


def test_a_hundred_thousand_damaged_messages_of_all_kinds() -> None:
    refused, read = fuzz(100_000, seed=1)
    assert refused > 50_000 and read > 1_000, "damage that is never or always noticed proves little"


def test_damaged_but_signed_requests_do_not_break_a_hospital() -> None:
    federation = Federation("ABC", size=6)
    hospital, rng = federation.hospitals["A"], np.random.default_rng(3)
    machines = {
        KeysRequest: hospital.keys,
        SharesRequest: hospital.shares,
        SurvivorsRequest: hospital.co_sign,
        UnmaskRequest: hospital.unmask,
        SumPlan: lambda content: hospital.verify(content, SAMPLES[Material], task=TASK),
    }
    for kind, machine in machines.items():
        for _ in range(150):
            content = damaged(SAMPLES[kind], rng)
            signed = content + federation.coordinator.sign(kind.kind, content)
            only_refuses(lambda signed=signed, machine=machine: machine(signed))
    current = federation.keyed()
    federation.uploaded(current)
    federation.open(current)


def test_damaged_but_signed_answers_do_not_break_the_coordinator() -> None:
    federation = Federation("ABC", size=6)
    current, rng = federation.begin(), np.random.default_rng(4)
    takers = {
        Keys: current.take_keys,
        Shares: current.take_shares,
        SealedUpload: current.take_upload,
        CoSignature: current.take_signature,
        Unmasking: current.take_unmasking,
    }
    for kind, take in takers.items():
        for _ in range(150):
            content = damaged(SAMPLES[kind], rng)
            signed = content + federation.identities["A"].sign(kind.kind, content)
            only_refuses(lambda signed=signed, take=take: take("A", signed))


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"study": 1, "last": [1], "opened": {}}', "{" * 99]
)
def test_damaged_ledgers_are_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match="ledger"):
        Ledger.from_json(text)
