from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlens.errors import ProtocolError
from fedlens.protocol.ledger import STEPS, Ledger, position
from fedlens.protocol.messages import Stamp


def stamp(segment: int = 1, number: int = 1, step: str = "train") -> Stamp:
    return Stamp("study", "roster", segment, number, step)


STAMPS = st.builds(stamp, st.integers(1, 5), st.integers(0, 5), st.sampled_from(STEPS))
OTHERS = (("A", "B"), ("A", "B", "D"), ("A", "B", "C", "D"), ("A", "C", "B"))
SURVIVORS = st.lists(st.text(max_size=8), min_size=1, max_size=4, unique=True).map(tuple)


@st.composite
def ledgers(draw: st.DrawFn) -> Ledger:
    ledger = Ledger(draw(st.text(max_size=8)))
    for sum_of in draw(st.lists(STAMPS, max_size=4)):
        ledger = ledger.uploaded(sum_of).with_opened(sum_of, draw(st.text(max_size=8)), draw(SURVIVORS))
    return ledger


def test_positions_follow_segment_round_and_step() -> None:
    in_order = [
        stamp(1, 0, "enrol"),
        stamp(1, 0, "train"),
        stamp(1, 1, "train"),
        stamp(1, 1, "evaluate"),
        stamp(1, 1, "explain"),
        stamp(1, 1, "basis"),
        stamp(1, 1, "scores"),
        stamp(1, 2, "enrol"),
        stamp(2, 0, "enrol"),
        stamp(2, 1, "train"),
    ]
    positions = [position(each) for each in in_order]
    assert positions == sorted(set(positions))


@pytest.mark.parametrize("wrong", [stamp(0), stamp(-1), stamp(1, -1), stamp(step="rest"), stamp(step="")])
def test_steps_that_do_not_exist_are_named(wrong: Stamp) -> None:
    named = f"no step '{wrong.step}' of round {wrong.round}, segment {wrong.segment}"
    with pytest.raises(ProtocolError, match=named):
        position(wrong)
    with pytest.raises(ProtocolError, match=named):
        Ledger("study").check_forward(wrong)


@settings(deadline=None, max_examples=60)
@given(STAMPS, STAMPS)
def test_only_what_lies_ahead_is_allowed(first: Stamp, second: Stamp) -> None:
    ledger = Ledger("study")
    ledger.check_forward(first)
    ledger = ledger.uploaded(first)
    if position(second) > position(first):
        ledger.check_forward(second)
    else:
        with pytest.raises(ProtocolError, match="lies behind") as refused:
            ledger.check_forward(second)
        assert f"Round {second.round} ({second.step}, segment {second.segment})" in refused.value.what
        assert f"round {first.round} ({first.step}, segment {first.segment})" in refused.value.why


def test_the_same_sum_is_refused_twice_but_may_be_repeated_in_a_new_segment() -> None:
    ledger = Ledger("study").uploaded(stamp(1, 3))
    with pytest.raises(ProtocolError, match="Start the coordinator again, which begins a new segment"):
        ledger.check_forward(stamp(1, 3))
    ledger.check_forward(stamp(2, 3))


def test_a_round_that_was_never_opened_may_be_opened_over_anybody() -> None:
    ledger = Ledger("study").with_opened(stamp(1, 1), "first", ("A",))
    ledger.check_same_survivors(stamp(1, 2), "second", ("B", "C"))


@pytest.mark.parametrize("model", ["weights", "others"])
def test_a_repeated_round_opens_over_the_same_survivors_only(model: str) -> None:
    ledger = Ledger("study").with_opened(stamp(1, 2), "weights", ("A", "B", "C"))
    again = stamp(2, 2)
    ledger.check_same_survivors(again, model, ("A", "B", "C"))
    for others in OTHERS:
        with pytest.raises(ProtocolError, match="opened over A, B, C") as refused:
            ledger.check_same_survivors(again, model, others)
        assert f"Opened over {', '.join(others)} too" in refused.value.why
        assert "Resume with the same hospitals" in refused.value.fix


@pytest.mark.parametrize("again", [stamp(1, 3), stamp(2, 3), stamp(1, 9), stamp(3, 0)])
def test_the_same_step_on_the_same_weights_opens_over_the_same_survivors_only(again: Stamp) -> None:
    ledger = Ledger("study").with_opened(stamp(1, 2), "weights", ("A", "B", "C"))
    ledger.check_same_survivors(again, "weights", ("A", "B", "C"))
    for others in OTHERS:
        ledger.check_same_survivors(again, "others", others)
        with pytest.raises(ProtocolError, match="opened over A, B, C") as refused:
            ledger.check_same_survivors(again, "weights", others)
        assert f"Opened over {', '.join(others)} too" in refused.value.why
        assert "with another seed" in refused.value.fix


def test_an_opening_is_kept_by_its_place_and_by_its_weights_whatever_comes_after() -> None:
    ledger = Ledger("study").with_opened(stamp(1, 1), "first", ("A", "B", "C"))
    ledger = ledger.with_opened(stamp(1, 2), "second", ("A", "B", "D"))
    for sum_of, model in ((stamp(2, 1), "new"), (stamp(2, 3), "first"), (stamp(2, 1), "second")):
        with pytest.raises(ProtocolError, match="opened over A, B, C"):
            ledger.check_same_survivors(sum_of, model, ("A", "B", "D"))
    with pytest.raises(ProtocolError, match="opened over A, B, D"):
        ledger.check_same_survivors(stamp(2, 1), "second", ("A", "B", "C"))


def test_the_steps_of_a_round_are_opened_apart() -> None:
    ledger = Ledger("study").with_opened(stamp(1, 2, "train"), "weights", ("A", "B"))
    ledger.check_same_survivors(stamp(1, 2, "evaluate"), "weights", ("A", "C"))


def test_entries_make_a_new_ledger() -> None:
    ledger = Ledger("study").with_opened(stamp(1, 1), "weights", ("A", "B"))
    ledger.uploaded(stamp(2, 2))
    ledger.with_opened(stamp(1, 2), "others", ("A", "C"))
    assert ledger == Ledger("study", (0, 0, 0), {"1/train": ("A", "B"), "train/weights": ("A", "B")})


@settings(deadline=None, max_examples=60)
@given(ledgers())
def test_ledgers_come_back_from_json(ledger: Ledger) -> None:
    text = ledger.to_json()
    assert Ledger.from_json(text) == ledger
    assert Ledger.from_json(text).to_json() == text


def test_a_ledger_from_json_still_refuses() -> None:
    ledger = Ledger("study").uploaded(stamp(1, 2)).with_opened(stamp(1, 2), "weights", ("A", "B"))
    read = Ledger.from_json(ledger.to_json())
    with pytest.raises(ProtocolError, match="lies behind"):
        read.check_forward(stamp(1, 2))
    for sum_of, model in ((stamp(2, 2), "others"), (stamp(2, 5), "weights")):
        with pytest.raises(ProtocolError, match="opened over A, B"):
            read.check_same_survivors(sum_of, model, ("A", "C"))


def test_a_torn_ledger_is_refused_wherever_it_was_torn() -> None:
    ledger = Ledger("study").uploaded(stamp(1, 2)).with_opened(stamp(1, 2), "weights", ("A", "B"))
    text = ledger.to_json()
    for length in range(len(text)):
        with pytest.raises(ProtocolError, match="cannot be read"):
            Ledger.from_json(text[:length])


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "null",
        "7",
        "{}",
        '{"study": "s", "last": [1, 1], "opened": {}}',
        '{"study": "s", "last": [1, 1, 1, 1], "opened": {}}',
        '{"study": "s", "last": ["x", 1, 1], "opened": {}}',
        '{"study": "s", "last": [1, 1, 1], "opened": []}',
        '{"study": "s", "last": [1, 1, 1], "opened": {"1/train": 3}}',
        '{"study": "s", "last": [1, 1, 1]}',
        '{"last": [1, 1, 1], "opened": {}}',
        '{"study": "s", "last": [Infinity, 1, 1], "opened": {}}',
        '{"study": "s", "last": [1, -Infinity, 1], "opened": {}}',
        '{"study": "s", "last": [1, 1e999, 1], "opened": {}}',
        '{"study": "s", "last": [1, 1, NaN], "opened": {}}',
        '{"study": "s", "last": [1, 1, 7], "opened": {}}',
        '{"study": "s", "last": [1, 1, 6], "opened": {}}',
        '{"study": "s", "last": [1, 1, -1], "opened": {}}',
        '{"study": "s", "last": [1, 1, ' + "9" * 5000 + '], "opened": {}}',
        '{"study": "s", "last": 3, "opened": {}}',
        '{"study": "s", "last": [1, 1, 1], "opened": "1/train"}',
        '{"study": "s", "last": [1, 1, 1], "opened": {"1/train": "AB"}}',
        '{"study": "s", "last": [1, 1, 1], "opened": {"1/train": ["A", 3]}}',
        '{"study": "s", "last": [1, 1, 1], "opened": {"1/train": [["A"]]}}',
        '{"study": "s", "last": [1, 1, 1], "opened": {"1/train": {"A": "B"}}}',
        '{"study": "s", "last": [1, 1, 1], "opened": {"1/train": null}}',
        "[" * 100_000,
        '{"study": ' * 100_000,
        '{"study": "s", "last": [1, 1, 1], "opened": {"1/train": ' + "[" * 100_000 + "]" * 100_000 + "}}",
    ],
    ids=lambda text: text if len(text) < 90 else f"{text[:40]}... of {len(text)}",
)
def test_a_ledger_of_another_kind_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(ProtocolError, match="a round could be opened twice"):
        Ledger.from_json(text)
