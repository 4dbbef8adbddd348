from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from fedlens.errors import ProtocolError
from fedlens.protocol.codec import arrays_digest, decode, digest, encode, kind_of, read_signed, sign
from fedlens.protocol.messages import (
    Box,
    CoSignature,
    EnrolRequest,
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
    TrainRequest,
    Unmasking,
    UnmaskRequest,
)
from fedlens.protocol.roster import COORDINATOR, SIGNATURE_BYTES, Identity, Roster
from tests.protocol.test_messages import PLANS

MOST = 1 << 20
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
BYTES = st.binary(max_size=40)
BLOBS = st.dictionaries(TEXT, BYTES, max_size=4)
NAMES = st.lists(TEXT, max_size=3).map(tuple)
ARRAYS = st.dictionaries(
    TEXT, st.lists(FLOATS, max_size=3).map(lambda row: np.array(row, np.float64).clip(-9, 9).astype("f4"))
)
KINDS = (
    KeysRequest,
    Keys,
    SharesRequest,
    Box,
    Shares,
    SumPlan,
    EnrolRequest,
    Material,
    Receipt,
    SealedUpload,
    SurvivorsRequest,
    CoSignature,
    UnmaskRequest,
    Unmasking,
)
STAMP = Stamp("study", "roster", 1, 2, "train")


def identity(name: str) -> Identity:
    return Identity.from_bytes(name, hashlib.sha256(name.encode()).digest())


A, B, COORDINATING = identity("A"), identity("B"), identity(COORDINATOR)
ROSTER = Roster.draft({"A": A.public(), "B": B.public()}, COORDINATING.public())
STAMPS = st.builds(Stamp, TEXT, TEXT, INTEGERS, INTEGERS, TEXT)


def strategy_of(kind: type[Any]) -> st.SearchStrategy[Any]:
    by_name = {"Stamp": STAMPS, "Blobs": BLOBS, "Parameters": ARRAYS}
    by_name |= {"str": TEXT, "int": INTEGERS, "float": FLOATS, "bytes": BYTES, "tuple[str, ...]": NAMES}
    by_name["memoryview"] = BYTES.map(memoryview)
    return st.builds(kind, **{entry.name: by_name[str(entry.type)] for entry in dataclasses.fields(kind)})


MESSAGES = st.one_of([strategy_of(kind) for kind in KINDS])


def shares() -> Shares:
    return Shares(STAMP, "A", {"B": b"box", "C": b""}, b"deposit")


def same(left: Any, right: Any) -> bool:
    for entry in dataclasses.fields(left):
        first, second = getattr(left, entry.name), getattr(right, entry.name)
        if isinstance(first, dict) and any(isinstance(value, np.ndarray) for value in first.values()):
            if set(first) != set(second) or not all(np.array_equal(first[key], second[key]) for key in first):
                return False
        elif first != second:
            return False
    return type(left) is type(right)


@settings(deadline=None, max_examples=60)
@given(MESSAGES)
def test_what_was_signed_comes_back_as_it_went(message: Any) -> None:
    content = sign(message, A)
    assert content[:-SIGNATURE_BYTES] == encode(message)
    assert kind_of(content) == message.kind
    returned = read_signed(content, type(message), ROSTER, "A", most=len(content))
    assert same(message, returned)
    assert encode(returned) == encode(message)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=5)
@given(st.data())
def test_every_kind_comes_back(kind: type[Any], data: st.DataObject) -> None:
    message = data.draw(strategy_of(kind))
    assert same(message, decode(encode(message), kind))


def test_the_signature_is_the_senders_for_the_kind() -> None:
    content = sign(shares(), A)
    assert content[-SIGNATURE_BYTES:] == A.sign("shares", encode(shares()))
    ROSTER.verify("A", "shares", encode(shares()), content[-SIGNATURE_BYTES:])


def test_the_same_message_is_signed_alike() -> None:
    assert sign(shares(), A) == sign(shares(), A)


def test_the_coordinators_messages_are_read_in_its_name() -> None:
    content = sign(KeysRequest(STAMP), COORDINATING)
    assert read_signed(content, KeysRequest, ROSTER, COORDINATOR, most=MOST) == KeysRequest(STAMP)


def test_a_message_of_another_sender_is_refused() -> None:
    content = sign(shares(), A)
    for sender in ("B", COORDINATOR):
        with pytest.raises(ProtocolError, match=f"in the name of {sender} was not signed by it"):
            read_signed(content, Shares, ROSTER, sender, most=MOST)
    with pytest.raises(ProtocolError, match="'D' is not in the roster"):
        read_signed(content, Shares, ROSTER, "D", most=MOST)


def test_a_message_of_another_kind_is_refused() -> None:
    @dataclasses.dataclass(frozen=True)
    class Disguised(CoSignature):
        kind = "survivors"

    message = CoSignature(STAMP, "A", ("A",), ())
    with pytest.raises(ProtocolError, match="was not signed by it"):
        read_signed(sign(message, A), Receipt, ROSTER, "A", most=MOST)
    disguised = encode(message) + A.sign("receipt", encode(message))
    with pytest.raises(ProtocolError, match=r"kind receipt cannot be read.*its kind is 'co-signature'"):
        read_signed(disguised, Receipt, ROSTER, "A", most=MOST)
    with pytest.raises(ProtocolError, match="was not signed by it"):
        read_signed(sign(Disguised(STAMP, "A", ("A",), ()), A), CoSignature, ROSTER, "A", most=MOST)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_change_of_any_bit_is_refused(data: st.DataObject) -> None:
    content = bytearray(sign(shares(), A))
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ProtocolError, match="was not signed by it"):
        read_signed(bytes(content), Shares, ROSTER, "A", most=MOST)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_a_truncated_message_is_refused(data: st.DataObject) -> None:
    content = sign(shares(), A)
    with pytest.raises(ProtocolError):
        read_signed(content[: data.draw(st.integers(0, len(content) - 1))], Shares, ROSTER, "A", most=MOST)


@pytest.mark.parametrize("size", [0, 1, SIGNATURE_BYTES])
def test_less_than_a_signature_is_refused_with_the_sizes_allowed(size: int) -> None:
    with pytest.raises(ProtocolError, match=f"in the name of A has {size} bytes. It has 65 to 1000"):
        read_signed(bytes(size), Shares, ROSTER, "A", most=1000)


def test_an_oversized_message_is_not_looked_at() -> None:
    content = sign(shares(), A)
    read_signed(content, Shares, ROSTER, "A", most=len(content))
    with pytest.raises(ProtocolError, match=f"has {len(content)} bytes. It has 65 to {len(content) - 1}"):
        read_signed(content, Shares, ROSTER, "A", most=len(content) - 1)


def test_signed_nonsense_is_refused() -> None:
    for content in (b"nonsense", bytes(100), b"\xff" * 80):
        with pytest.raises(ProtocolError, match="kind shares cannot be read"):
            read_signed(content + A.sign("shares", content), Shares, ROSTER, "A", most=MOST)


def forged(arrays: dict[str, Any], **changed: Any) -> bytes:
    header = {"kind": "shares", "stamp": dataclasses.asdict(STAMP), "hospital": "A"} | changed
    return save(arrays, {"fedlens": json.dumps(header)})


DEPOSIT = {"deposit": np.zeros(3, np.uint8)}


def test_a_message_put_together_by_hand_is_read() -> None:
    content = forged({**DEPOSIT, "boxes/B": np.array([1, 2], np.uint8)})
    assert decode(content, Shares) == Shares(STAMP, "A", {"B": b"\1\2"}, bytes(3))


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"boxes/B": np.zeros(3, np.uint8)}, "field deposit is missing"),
        ({"deposit": np.zeros(3, np.float32)}, "field deposit is not bytes"),
        ({"deposit": np.zeros((3, 1), np.uint8)}, "field deposit is not bytes"),
        ({"deposit": np.array(1, np.uint8)}, "field deposit is not bytes"),
        ({**DEPOSIT, "boxes/B": np.zeros(3, np.int64)}, "field B is not bytes"),
        ({**DEPOSIT, "boxes/B": np.zeros((1, 3), np.uint8)}, "field B is not bytes"),
        ({**DEPOSIT, "boxes": np.zeros(3, np.uint8)}, "array boxes belongs to no field"),
        ({**DEPOSIT, "other/B": np.zeros(3, np.uint8)}, "array other/B belongs to no field"),
    ],
)
def test_bytes_of_another_type_shape_or_name_are_refused(arrays: dict[str, Any], reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        decode(forged(arrays), Shares)


@pytest.mark.parametrize(
    "stamp",
    [
        None,
        7,
        [],
        {},
        {**dataclasses.asdict(STAMP), "more": 1},
        {name: value for name, value in dataclasses.asdict(STAMP).items() if name != "round"},
        {**dataclasses.asdict(STAMP), "round": 1.5},
        {**dataclasses.asdict(STAMP), "round": True},
        {**dataclasses.asdict(STAMP), "round": 2**63},
        {**dataclasses.asdict(STAMP), "study": 3},
    ],
)
def test_a_stamp_with_other_fields_is_refused(stamp: Any) -> None:
    with pytest.raises(ProtocolError, match="kind shares cannot be read"):
        decode(forged(DEPOSIT, stamp=stamp), Shares)


@pytest.mark.parametrize("survivors", ["A", [1], [["A"]], {"A": 1}, None])
def test_a_list_of_anything_but_names_is_refused(survivors: Any) -> None:
    header = {
        "kind": "co-signature",
        "stamp": dataclasses.asdict(STAMP),
        "hospital": "A",
        "survivors": survivors,
        "dropped": [],
    }
    with pytest.raises(ProtocolError, match="its field survivors"):
        decode(save({}, {"fedlens": json.dumps(header)}), CoSignature)


def test_bytes_are_no_parameters() -> None:
    plan = dataclasses.replace(sum_plan(), ranges={"ranges": np.zeros(2, np.uint8)})
    with pytest.raises(ProtocolError, match="array ranges is uint8"):
        encode(plan)


def sum_plan() -> SumPlan:
    return SumPlan(
        stamp=STAMP,
        participants=("A", "B"),
        threshold=2,
        value_bits=16,
        ring_bits=17,
        values=2,
        totals=3,
        images=10,
        norm_bound=1.5,
        task="task",
        keys="keys",
        next_round=3,
        next_step="train",
        ranges={"ranges": np.array([1, 2], np.float32)},
    )


CHANGES: dict[str, Callable[[Any], Any]] = {
    "stamp": lambda stamp: dataclasses.replace(stamp, round=stamp.round + 1),
    "participants": lambda names: names[::-1],
    "ranges": lambda ranges: {"ranges": np.nextafter(ranges["ranges"], np.float32(9))},
}


@pytest.mark.parametrize("name", [entry.name for entry in dataclasses.fields(SumPlan)])
def test_every_field_of_a_plan_changes_its_digest_and_its_signature(name: str) -> None:
    plan = sum_plan()
    before = getattr(plan, name)
    change = CHANGES.get(name, lambda value: value + ("x" if isinstance(value, str) else 1))
    other = dataclasses.replace(plan, **{name: change(before)})
    assert digest(other) != digest(plan)
    assert sign(other, A)[-SIGNATURE_BYTES:] != sign(plan, A)[-SIGNATURE_BYTES:]


@settings(deadline=None, max_examples=40)
@given(PLANS, st.binary(max_size=20), st.binary(min_size=1, max_size=20))
def test_a_requests_digest_leaves_out_its_seal_and_nothing_else(plan: Any, first: bytes, more: bytes) -> None:
    parameters = {
        "b": np.array(1, np.int64),
        "a": np.ones((2, 0), np.float32),
        "seal": np.ones(2, np.float32),
    }
    plain = TrainRequest(plan, parameters, first)
    sealed = TrainRequest(plan, dict(reversed(parameters.items())), first + more)
    assert digest(plain, without="seal") == digest(sealed, without="seal")
    assert digest(plain) != digest(sealed)
    other = TrainRequest(plan, {**parameters, "seal": np.zeros(2, np.float32)}, first)
    assert digest(plain, without="seal") != digest(other, without="seal")


@settings(deadline=None, max_examples=40)
@given(MESSAGES)
def test_digests_are_the_same_on_both_sides_of_the_wire(message: Any) -> None:
    found = digest(message)
    assert len(bytes.fromhex(found)) == 32
    assert digest(decode(encode(message), type(message))) == found


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"w": np.zeros(4, np.float32)}, {"w": np.zeros((2, 2), np.float32)}),
        ({"w": np.zeros(2, np.float32)}, {"w": np.zeros(1, np.int64)}),
        ({"w": np.zeros(2, np.float32)}, {"v": np.zeros(2, np.float32)}),
        ({"a": np.zeros(1, np.float32), "b": np.zeros(2, np.float32)}, {"a": np.zeros(3, np.float32)}),
        ({"w": np.zeros(1, np.float32)}, {"w": np.full(1, -0.0, np.float32)}),
    ],
)
def test_shape_type_name_and_bits_of_an_array_change_the_digest(first: Any, second: Any) -> None:
    plan = sum_plan()
    assert digest(dataclasses.replace(plan, ranges=first)) != digest(dataclasses.replace(plan, ranges=second))


def test_where_one_blob_ends_and_the_next_begins_changes_the_digest() -> None:
    first, second = Material({"A": b"12", "B": b"3"}, {}), Material({"A": b"1", "B": b"23"}, {})
    assert digest(first) != digest(second)
    assert digest(Material({"A": b"1"}, {})) != digest(Material({}, {"A": b"1"}))


def test_digests_and_signatures_only_read() -> None:
    array = np.array([[1, 2], [3, 4]], np.float32).T
    array.flags.writeable = False
    plan = dataclasses.replace(sum_plan(), ranges={"ranges": array})
    assert digest(plan) == digest(decode(encode(plan), SumPlan))
    assert np.array_equal(array, [[1, 3], [2, 4]])


def test_the_digest_of_arrays_is_over_names_types_shapes_and_bytes() -> None:
    arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "count": np.array(7, np.int64)}
    known = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}
    entries = [["count", "int64", [], known["count"]], ["w", "float32", [2, 3], known["w"]]]
    assert arrays_digest(arrays) == hashlib.sha256(json.dumps(entries).encode()).hexdigest()
    assert arrays_digest(arrays, known) == arrays_digest(arrays)
    assert arrays_digest(arrays, {"w": known["count"]}) != arrays_digest(arrays)
    assert arrays_digest(dict(reversed(arrays.items()))) == arrays_digest(arrays)
    assert arrays_digest({}) == hashlib.sha256(b"[]").hexdigest()


def test_how_an_array_lies_in_memory_does_not_change_its_digest() -> None:
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    for same_array in (np.asfortranarray(array), np.repeat(array, 2, axis=1)[:, ::2]):
        assert arrays_digest({"w": same_array}) == arrays_digest({"w": array})
    assert arrays_digest({"w": array.T}) != arrays_digest({"w": array})
    assert arrays_digest({"w": array.T}) == arrays_digest({"w": array.T.copy()})


def test_a_messages_digest_is_over_its_header_and_the_digest_of_its_arrays() -> None:
    message = shares()
    header = {"kind": "shares", "stamp": dataclasses.asdict(STAMP), "hospital": "A"}
    blobs = {"boxes/B": b"box", "boxes/C": b"", "deposit": b"deposit"}
    arrays = {name: np.frombuffer(blob, np.uint8) for name, blob in blobs.items()}
    text = json.dumps(header, sort_keys=True) + arrays_digest(arrays)
    assert digest(message) == hashlib.sha256(text.encode()).hexdigest()
    del arrays["deposit"]
    text = json.dumps(header, sort_keys=True) + arrays_digest(arrays)
    assert digest(message, without="deposit") == hashlib.sha256(text.encode()).hexdigest()
