from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from safetensors.numpy import load, save

from fedlens.errors import RoundError
from fedlens.protocol.codec import array_bytes, decode, encode, kind_of
from fedlens.protocol.messages import (
    AdviceBasis,
    AdviceScores,
    BasisRequest,
    EvaluateRequest,
    Evaluation,
    ExplainRequest,
    Explanation,
    ExplanationTotals,
    Noted,
    RoundPlan,
    ScoresRequest,
    TrainRequest,
    Update,
)

KINDS = (
    TrainRequest,
    Update,
    EvaluateRequest,
    Evaluation,
    ExplainRequest,
    Explanation,
    ExplanationTotals,
    Noted,
    BasisRequest,
    AdviceBasis,
    ScoresRequest,
    AdviceScores,
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
ARRAYS = st.dictionaries(
    TEXT.filter(lambda name: name != "__metadata__"),
    st.one_of(
        npst.arrays(np.float32, npst.array_shapes(min_dims=0, min_side=0, max_dims=4, max_side=4)),
        npst.arrays(np.int64, npst.array_shapes(min_dims=0, min_side=0, max_dims=4, max_side=4)),
    ),
    max_size=4,
)
PLANS = st.builds(
    RoundPlan,
    study=TEXT,
    round=INTEGERS,
    rounds=INTEGERS,
    fingerprint=TEXT,
    passes=FLOATS,
    seed=INTEGERS,
    learning_rate_start=FLOATS,
    learning_rate_end=FLOATS,
    proximal_mu=FLOATS,
    personal=st.lists(TEXT, max_size=3).map(tuple),
)
SENDER: dict[str, Any] = {"hospital": TEXT, "study": TEXT, "round": INTEGERS, "fingerprint": TEXT}
MESSAGES = st.one_of(
    st.builds(TrainRequest, plan=PLANS, parameters=ARRAYS),
    st.builds(
        Update,
        **SENDER,
        images=INTEGERS,
        loss_sum=FLOATS,
        correct=INTEGERS,
        seen=INTEGERS,
        seconds=FLOATS,
        delta=ARRAYS,
    ),
    *(
        st.builds(kind, study=TEXT, round=INTEGERS, fingerprint=TEXT, split=TEXT, parameters=ARRAYS)
        for kind in (EvaluateRequest, ExplainRequest, BasisRequest)
    ),
    st.builds(
        ScoresRequest,
        study=TEXT,
        round=INTEGERS,
        fingerprint=TEXT,
        split=TEXT,
        parameters=ARRAYS,
        temperature=FLOATS,
        statistics=ARRAYS,
    ),
    *(
        st.builds(kind, **SENDER, split=TEXT, seconds=FLOATS, counts=ARRAYS)
        for kind in (Explanation, AdviceBasis, AdviceScores)
    ),
    st.builds(ExplanationTotals, study=TEXT, round=INTEGERS, totals=ARRAYS),
    st.builds(Noted, hospital=TEXT, study=TEXT, round=INTEGERS),
    st.builds(Evaluation, **SENDER, split=TEXT, loss_sum=FLOATS, seconds=FLOATS, counts=ARRAYS),
)


def update() -> Update:
    delta = {
        "conv.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "norm.count": np.array(7, np.int64),
    }
    return Update("A", "s", 1, "f", 10, 2.5, 7, 10, 0.5, delta)


def forged(header: Any, kind: str = Update.kind, **arrays: Any) -> bytes:
    if isinstance(header, dict):
        header = {"kind": kind, **header}
    text = header if isinstance(header, str) else json.dumps(header)
    return save(arrays or {"delta/w": np.zeros(1, np.float32)}, {"fedlens": text})


def honest_header(**changed: Any) -> dict[str, Any]:
    header = {entry.name: getattr(update(), entry.name) for entry in dataclasses.fields(Update)}
    header.pop("delta")
    return {**header, **changed}


@settings(deadline=None, max_examples=50)
@given(MESSAGES)
def test_every_message_comes_back_as_it_went(message: Any) -> None:
    content = encode(message)
    assert kind_of(content) == message.kind
    returned = decode(content, type(message))
    for entry in dataclasses.fields(message):
        given_value, value = getattr(message, entry.name), getattr(returned, entry.name)
        if not isinstance(given_value, dict):
            assert value == given_value and type(value) is type(given_value)
            continue
        assert value.keys() == given_value.keys()
        for name, array in given_value.items():
            assert value[name].dtype == array.dtype and value[name].shape == array.shape
            assert value[name].tobytes() == np.asarray(array, order="C").tobytes()


def test_same_message_is_the_same_bytes() -> None:
    message = update()
    reordered = dataclasses.replace(message, delta=dict(reversed(message.delta.items())))
    assert encode(message) == encode(reordered)


def test_array_bytes_do_not_depend_on_the_clock() -> None:
    for seconds in (0.0, 1.2345678901234567, 1e300):
        assert array_bytes(encode(dataclasses.replace(update(), seconds=seconds))) == 6 * 4 + 8
    assert array_bytes(b"") == 0


def test_counter_keeps_its_shape_and_arrays_stay_as_they_were() -> None:
    strided = np.arange(12, dtype=np.float32).reshape(3, 4).T
    message = dataclasses.replace(update(), delta={"count": np.array(3, np.int64), "w": strided})
    returned = decode(encode(message), Update)
    assert returned.delta["count"].shape == ()
    np.testing.assert_array_equal(returned.delta["w"], strided)
    assert not strided.flags.c_contiguous and message.delta["w"] is strided


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.sampled_from(KINDS))
def test_truncated_messages_are_refused(length: int, kind: Any) -> None:
    content = encode(update())
    with pytest.raises(RoundError):
        decode(content[: length % len(content)], kind)


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=300), st.sampled_from(KINDS))
@example(b"\xff" * 40, Update)
@example((60_000).to_bytes(8, "little") + b"[" * 60_000, Update)
@example((4).to_bytes(8, "little") + b"null", Update)
@example((21).to_bytes(8, "little") + b'{"__metadata__": "x"}', Update)
@example((26).to_bytes(8, "little") + b'{"__metadata__":{"fed":1}}', Update)
def test_garbage_is_refused(content: bytes, kind: Any) -> None:
    with pytest.raises(RoundError, match=kind.kind):
        decode(content, kind)
    with pytest.raises(RoundError, match="not a message"):
        kind_of(content)


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_damaged_messages_are_refused_or_read(data: st.DataObject) -> None:
    content = bytearray(encode(update()))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        returned = decode(bytes(content), Update)
    except RoundError:
        return
    assert isinstance(returned.images, int) and isinstance(returned.loss_sum, float)
    assert all(array.dtype in (np.float32, np.int64) for array in returned.delta.values())


@pytest.mark.parametrize("asked", [kind for kind in KINDS if kind is not Update])
def test_another_kind_is_refused(asked: Any) -> None:
    with pytest.raises(RoundError, match="its kind is 'update'"):
        decode(encode(update()), asked)


@pytest.mark.parametrize(
    "header",
    [
        "not json",
        "[" * 60_000,
        "[]",
        '"plan"',
        "null",
        {},
        honest_header(extra=1),
        honest_header(delta={}),
        honest_header(images="5"),
        honest_header(images=5.0),
        honest_header(images=True),
        honest_header(images=2**63),
        honest_header(images=None),
        honest_header(hospital=["A"]),
        honest_header(loss_sum="1"),
        honest_header(loss_sum=float("nan")),
        honest_header(loss_sum=float("inf")),
        honest_header(loss_sum=10**400),
    ],
    ids=str,
)
def test_wrong_headers_are_refused(header: Any) -> None:
    with pytest.raises(RoundError, match="cannot be read"):
        decode(forged(header), Update)


@pytest.mark.parametrize("change", [{"personal": "abc"}, {"personal": [1]}, {"round": "1"}, {"more": 1}])
def test_wrong_plans_are_refused(change: dict[str, Any]) -> None:
    plan = dataclasses.asdict(RoundPlan("s", 1, 2, "f", 1.0, 0, 0.1, 0.1))
    arrays = {"parameters/w": np.zeros(1, np.float32), "seal": np.zeros(0, np.uint8)}
    good = forged({"plan": plan}, TrainRequest.kind, **arrays)
    assert decode(good, TrainRequest).plan.passes == 1.0
    with pytest.raises(RoundError):
        decode(forged({"plan": {**plan, **change}}, TrainRequest.kind, **arrays), TrainRequest)
    with pytest.raises(RoundError):
        decode(forged({"plan": [plan]}, TrainRequest.kind, **arrays), TrainRequest)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.uint8, np.bool_, np.int32])
def test_only_float32_and_int64_travel(dtype: Any) -> None:
    array = np.zeros(2, dtype)
    with pytest.raises(RoundError, match="array w"):
        encode(dataclasses.replace(update(), delta={"w": array}))
    with pytest.raises(RoundError, match="array w"):
        decode(forged(honest_header(), **{"delta/w": array}), Update)


def test_diverged_loss_is_not_sent() -> None:
    with pytest.raises(RoundError, match="diverged"):
        encode(dataclasses.replace(update(), loss_sum=float("nan")))


def test_the_format_is_the_librarys() -> None:
    """What is written here any safetensors reader can read, and the other way round."""
    message = dataclasses.replace(
        update(), delta={"count": np.array(3, np.int64), "w": np.ones((2, 3), np.float32)}
    )
    content = encode(message)
    arrays = load(content)
    assert set(arrays) == {"delta/count", "delta/w"} and arrays["delta/count"].shape == ()
    np.testing.assert_array_equal(arrays["delta/w"], message.delta["w"])
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])["__metadata__"]
    again = decode(save(arrays, header), Update)
    np.testing.assert_array_equal(again.delta["w"], message.delta["w"])
    assert again.delta["count"] == 3


@pytest.mark.parametrize("offsets", [[0, 3], [4, 8], [0, 8], [-4, 0], ["0", 4], [0]])
def test_arrays_that_lie_elsewhere_than_they_say_are_refused(offsets: Any) -> None:
    honest = forged(honest_header())
    length = int.from_bytes(honest[:8], "little")
    table = json.loads(honest[8 : 8 + length])
    table["delta/w"]["data_offsets"] = offsets
    text = json.dumps(table).encode()
    assert decode(honest, Update).images == 10
    with pytest.raises(RoundError, match="cannot be read"):
        decode(len(text).to_bytes(8, "little") + text + honest[8 + length :], Update)
