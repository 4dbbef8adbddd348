from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlens.errors import ProtocolError
from fedlens.protocol.encoding import VALUE_BITS, WIDE_BITS, Encoder, exponent_counts, ring_bits, steps
from fedlens.protocol.masks import Masks
from fedlens.protocol.messages import Parameters, Stamp, SumPlan
from fedlens.protocol.packing import BLOCK, add_block, blocks, packed_size, word_type
from fedlens.protocol.totals import Layout, enrol_layout, train_layout
from fedlens.protocol.vectors import Octets, RunningSum, Seeds, Values, seal_numbers

COUNTS = ("images", "seen", "correct", "loss", "milliseconds")
STAMP = Stamp("study", "roster", 1, 1, "train")


def plan(
    sizes: Sequence[int],
    totals: int,
    *,
    value_bits: int = 16,
    hospitals: int = 3,
    ranges: Sequence[float] | None = None,
) -> SumPlan:
    return SumPlan(
        stamp=STAMP,
        participants=tuple(f"H{number}" for number in range(hospitals)),
        threshold=hospitals // 2 + 1,
        value_bits=value_bits,
        ring_bits=ring_bits(value_bits, hospitals),
        values=sum(sizes),
        totals=totals,
        images=100,
        norm_bound=1.0,
        task="task",
        keys="keys",
        next_round=0,
        next_step="",
        ranges={"ranges": np.array(ranges or [1.0] * len(sizes), np.float32)},
    )


def arrays(sizes: Sequence[int], seed: int = 0, most: float = 0.99) -> Parameters:
    rng = np.random.default_rng(seed)
    return {
        f"array{place}": rng.uniform(-most, most, size).astype(np.float32) for place, size in enumerate(sizes)
    }


def training_totals(number: int = 1) -> dict[str, npt.ArrayLike]:
    return {name: number * (place + 1) for place, name in enumerate(COUNTS)}


def seal(
    own: Parameters, agreed: SumPlan, seeds: Seeds, *, number: int = 1, weight: float = 1.0, seed: int = 0
) -> tuple[Octets, Octets, Any]:
    values = Values(own, list(own), weight, bytes([seed]) * 32)
    return seal_numbers(values, training_totals(number), train_layout(own), agreed, seeds)


def pairwise_seeds(hospitals: int) -> list[list[tuple[bytes, int]]]:
    """Each hospital's own seed, and those that it shares with every other."""

    def seed(first: int, second: int) -> bytes:
        return bytes([min(first, second), max(first, second)]) * 16

    return [
        [(seed(me, me), 1)]
        + [(seed(me, other), 1 if me < other else -1) for other in range(hospitals) if other != me]
        for me in range(hospitals)
    ]


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from([*VALUE_BITS, WIDE_BITS]),
    st.integers(2, 6),
    st.lists(st.integers(0, 30), min_size=1, max_size=4).filter(any),
    st.integers(0, 2**32),
)
def test_masks_cancel_and_the_sum_is_right_to_a_step_for_every_hospital(
    value_bits: int, hospitals: int, sizes: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    owned = [arrays(sizes, int(rng.integers(2**32))) for _ in range(hospitals)]
    layout = train_layout(owned[0])
    agreed = plan(sizes, layout.size, value_bits=value_bits, hospitals=hospitals)
    running = RunningSum(agreed)
    seeds = pairwise_seeds(hospitals)
    order = rng.permutation(hospitals)
    for place in order:
        values, totals, _ = seal(
            owned[place], agreed, seeds[place], number=int(place) - 1, weight=1 / hospitals, seed=int(place)
        )
        running.check(values.tobytes(), totals.tobytes())
        running.add(values.tobytes(), totals.tobytes())
    opened = running.open([(own[0][0], -1) for own in seeds], sizes, hospitals)
    expected = sum(np.concatenate(list(own.values())).astype(np.float64) for own in owned) / hospitals
    step = steps(np.array([1.0]), value_bits)[0]
    assert np.abs(opened.values - expected).max() <= hospitals * step * (1 + 2.0**-7)
    restored = layout.restore(opened.totals)
    counted = sum(range(hospitals)) - hospitals
    assert [restored[name] for name in COUNTS] == [counted * (place + 1) for place in range(len(COUNTS))]
    assert restored["exponents"].sum(axis=1).tolist() == [hospitals] * len(sizes)


def test_the_sum_does_not_depend_on_the_order_of_uploads() -> None:
    sizes = [BLOCK + 1]
    owned = [arrays(sizes, number) for number in range(3)]
    agreed = plan(sizes, train_layout(owned[0]).size)
    uploads = [seal(own, agreed, seeds)[:2] for own, seeds in zip(owned, pairwise_seeds(3), strict=True)]
    opened = []
    for order in ((0, 1, 2), (2, 0, 1)):
        running = RunningSum(agreed)
        for place in order:
            running.add(uploads[place][0].tobytes(), uploads[place][1].tobytes())
        opened.append(running.open([(seeds[0][0], -1) for seeds in pairwise_seeds(3)], sizes, 3))
    assert np.array_equal(opened[0].values, opened[1].values)
    assert np.array_equal(opened[0].totals, opened[1].totals)


def test_with_one_mask_left_on_nothing_is_right() -> None:
    sizes = [400]
    owned = [arrays(sizes, number) for number in range(2)]
    agreed = plan(sizes, train_layout(owned[0]).size, hospitals=2)
    seeds = pairwise_seeds(2)
    running = RunningSum(agreed)
    for own, own_seeds in zip(owned, seeds, strict=True):
        values, totals, _ = seal(own, agreed, own_seeds)
        running.add(values.tobytes(), totals.tobytes())
    opened = running.open([(seeds[0][0][0], -1)], sizes, 2)
    expected = owned[0]["array0"] + owned[1]["array0"]
    assert np.mean(np.abs(opened.values - expected) < 0.01) < 0.05


@pytest.mark.parametrize("value_bits", [*VALUE_BITS, WIDE_BITS])
@pytest.mark.parametrize("count", [BLOCK - 1, BLOCK, BLOCK + 1])
def test_the_keystream_covers_totals_then_values_block_by_block(value_bits: int, count: int) -> None:
    own = arrays([count])
    layout = train_layout(own)
    agreed = plan([count], layout.size, value_bits=value_bits)
    seeds = [(b"a" * 32, 1), (b"b" * 32, -1)]
    values, totals, outcome = seal(own, agreed, seeds)
    assert len(values) == packed_size(count, agreed.ring_bits)

    masks = Masks(seeds)
    mask = np.zeros(layout.size, "<u8")
    masks.add_to(mask)
    plain = {**training_totals(), "saturated": outcome.saturated, "exponents": outcome.exponents}
    assert totals.tobytes() == (layout.flatten(plain).view(np.uint64) + mask).tobytes()

    encoder = Encoder(
        [count],
        np.array([1.0]),
        value_bits=value_bits,
        ring=agreed.ring_bits,
        weight=1.0,
        seed=bytes(32),
    )
    start = 0
    for part in blocks(count):
        words = encoder.encode(own["array0"][part], part.start)
        masks.add_to(words)
        end = start + packed_size(len(words), agreed.ring_bits)
        found = np.zeros_like(words)
        add_block(values[start:end], agreed.ring_bits, found)
        assert np.array_equal(found, words & word_type(64).type((1 << agreed.ring_bits) - 1))
        start = end


def test_saturation_and_exponents_are_found_while_encoding() -> None:
    own = {"a": np.array([0.1, 5.0, -0.3], np.float32), "b": np.array([0.01], np.float32)}
    layout = train_layout(own)
    agreed = plan([3, 1], layout.size, hospitals=1)
    _, totals, outcome = seal(own, agreed, [])
    restored = layout.restore(totals.view(np.int64))
    assert outcome.saturated == restored["saturated"] == 1
    expected = exponent_counts(np.array([5.0, 0.01]))
    assert np.array_equal(restored["exponents"], expected)
    assert np.array_equal(outcome.exponents, expected)


def test_sums_without_values_are_exact() -> None:
    layout = enrol_layout()
    agreed = plan([], layout.size)
    running = RunningSum(agreed)
    for number, seeds in enumerate(pairwise_seeds(3)):
        values, totals, _ = seal_numbers(
            Values(), {"images": 10 + number, "validation": number}, layout, agreed, seeds
        )
        assert len(values) == 0
        running.add(values.tobytes(), totals.tobytes())
    opened = running.open([(seeds[0][0], -1) for seeds in pairwise_seeds(3)], [], 3)
    assert opened.values.shape == (0,)
    assert opened.totals.tolist() == [33, 3]


def test_what_is_sealed_is_only_read() -> None:
    own = arrays([5, 7])
    before = {name: array.copy() for name, array in own.items()}
    for array in own.values():
        array.flags.writeable = False
    totals = training_totals()
    agreed = plan([5, 7], train_layout(own).size)
    seal_numbers(Values(own, list(own)), totals, train_layout(own), agreed, [(bytes(32), 1)])
    assert totals == training_totals()
    assert all(np.array_equal(own[name], array) for name, array in before.items())


def test_values_lie_flat_in_the_order_of_the_names() -> None:
    own = {"b": np.array([[1, 2], [3, 4]], np.float32), "a": np.array(5, np.float32)}
    values = Values(own, ["a", "b"])
    assert values.sizes == [1, 4]
    assert [(start, block.tolist()) for start, block in values.blocks()] == [(0, [5, 1, 2, 3, 4])]
    assert list(Values().blocks()) == []


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from([0, 1, 5, BLOCK - 1, BLOCK, BLOCK + 1]), max_size=5))
def test_blocks_of_values_are_those_of_one_long_vector(sizes: list[int]) -> None:
    own = {f"array{place}": np.full(size, place, np.float32) for place, size in enumerate(sizes)}
    found = list(Values(own, list(own)).blocks())
    assert [(start, start + len(block)) for start, block in found] == [
        (part.start, part.stop) for part in blocks(sum(sizes))
    ]
    whole = np.concatenate([np.zeros(0, np.float32), *own.values()])
    assert np.array_equal(np.concatenate([np.zeros(0, np.float32), *(block for _, block in found)]), whole)


def test_the_same_seeds_give_the_same_upload() -> None:
    own = arrays([100])
    agreed = plan([100], train_layout(own).size)
    first, second = (seal(own, agreed, [(bytes(32), 1)]) for _ in range(2))
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])


@pytest.mark.parametrize(("values", "totals"), [(9, 54), (11, 54), (10, 53), (10, 55)])
def test_numbers_that_do_not_fit_the_plan_are_refused_with_both_sizes(values: int, totals: int) -> None:
    own = arrays([10])
    layout = train_layout(own)
    assert layout.size == 54
    agreed = plan([values], totals, ranges=[1.0])
    with pytest.raises(ProtocolError) as refused:
        seal(own, agreed, [])
    assert f"sums {values} values of 1 arrays and {totals} totals" in refused.value.what
    assert "has 10 of 1 and 54" in refused.value.why


@pytest.mark.parametrize("count", [0, 1, 3])
def test_ranges_of_another_count_are_refused_with_both_counts(count: int) -> None:
    own = arrays([4, 6])
    agreed = plan([4, 6], train_layout(own).size)
    seal(own, agreed, [])
    other = dataclasses.replace(agreed, ranges={"ranges": np.ones(count, np.float32)})
    with pytest.raises(ProtocolError) as refused:
        seal(own, other, [])
    assert f"sums 10 values of {count} arrays and {agreed.totals} totals" in refused.value.what
    assert f"has 10 of 2 and {agreed.totals}" in refused.value.why


def test_totals_of_another_layout_are_refused() -> None:
    layout = Layout({"images": (), "validation": ()})
    with pytest.raises(ProtocolError, match="images"):
        seal_numbers(Values(), {"images": 1}, layout, plan([], 2), [])


@pytest.mark.parametrize(("values", "totals"), [(-1, 0), (1, 0), (0, -8), (0, 1), (0, 8)])
def test_uploads_of_another_length_are_refused_with_the_one_expected(values: int, totals: int) -> None:
    agreed = plan([BLOCK + 5], 4)
    expected = packed_size(BLOCK + 5, agreed.ring_bits), 32
    found = expected[0] + values, expected[1] + totals
    running = RunningSum(agreed)
    running.check(bytes(expected[0]), bytes(expected[1]))
    with pytest.raises(ProtocolError) as refused:
        running.check(bytes(found[0]), bytes(found[1]))
    assert f"{found[0]} bytes of values and {found[1]} of totals" in refused.value.what
    assert f"{expected[0]} and {expected[1]}" in refused.value.why


def test_adding_leaves_the_upload_alone() -> None:
    own = arrays([50])
    agreed = plan([50], train_layout(own).size)
    values, totals, _ = seal(own, agreed, [])
    running = RunningSum(agreed)
    content = values.tobytes(), totals.tobytes()
    running.add(*content)
    running.add(*content)
    assert content == (values.tobytes(), totals.tobytes())


def test_secrets_do_not_show_when_printed() -> None:
    own = {"a": np.array([0.123456], np.float32)}
    assert "0.12345" not in repr(Values(own, ["a"]))
    agreed = plan([1], 0)
    assert "array" not in repr(RunningSum(agreed).open([], [1], 3))
