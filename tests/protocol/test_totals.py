from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlens.errors import ProtocolError
from fedlens.protocol.encoding import EXPONENT_BINS
from fedlens.protocol.totals import (
    AUROC_BINS,
    LOSS_SCALE,
    Layout,
    counter_names,
    enrol_layout,
    evaluation_layout,
    fixed_loss,
    train_layout,
    value_names,
)

MOST = 1 << 54
SHAPES = st.dictionaries(
    st.text(max_size=6), st.lists(st.integers(0, 3), max_size=3).map(tuple), min_size=1, max_size=5
)
TEMPLATE = {
    "norm.weight": np.zeros(3, np.float32),
    "conv.weight": np.zeros((2, 2), np.float32),
    "norm.count": np.array(0, np.int64),
    "a.steps": np.zeros(2, np.int64),
}


@st.composite
def numbers_and_layouts(draw: st.DrawFn) -> tuple[Layout, dict[str, Any]]:
    shapes = draw(SHAPES)
    integers = st.integers(-MOST, MOST)
    numbers = {}
    for name, shape in shapes.items():
        size = math.prod(shape)
        drawn = draw(st.lists(integers, min_size=size, max_size=size))
        numbers[name] = np.array(drawn, np.int64).reshape(shape)
    return Layout(shapes), numbers


@settings(deadline=None, max_examples=60)
@given(numbers_and_layouts())
def test_numbers_come_back_from_the_vector(case: tuple[Layout, dict[str, Any]]) -> None:
    layout, numbers = case
    before = {name: array.copy() for name, array in numbers.items()}
    vector = layout.flatten(dict(reversed(numbers.items())))
    assert vector.dtype == np.int64
    assert vector.shape == (layout.size,)
    restored = layout.restore(vector)
    assert list(restored) == list(layout.shapes)
    for name, array in before.items():
        assert np.array_equal(restored[name], array)
        assert restored[name].shape == array.shape
        assert np.array_equal(numbers[name], array)


def test_the_vector_follows_the_layouts_order() -> None:
    layout = Layout({"b": (2, 2), "a": (), "none": (0,)})
    assert layout.size == 5
    numbers = {"none": np.zeros(0, np.int64), "a": 9, "b": [[1, 2], [3, 4]]}
    assert layout.flatten(numbers).tolist() == [1, 2, 3, 4, 9]


def test_an_empty_layout_has_an_empty_vector() -> None:
    assert Layout({}).flatten({}).shape == (0,)
    assert Layout({}).restore(np.zeros(0, np.int64)) == {}


@pytest.mark.parametrize("names", [[], ["a"], ["a", "c"], ["a", "b", "c"]])
def test_other_names_are_refused(names: list[str]) -> None:
    with pytest.raises(ProtocolError, match=r"are not \['a', 'b'\]"):
        Layout({"a": (), "b": ()}).flatten(dict.fromkeys(names, 0))


@pytest.mark.parametrize("number", [[1], [[1, 2]], [1, 2, 3], 1])
def test_another_shape_is_refused_by_name(number: Any) -> None:
    with pytest.raises(ProtocolError, match=r"Total confusion of shape .*It has shape \(2,\)"):
        Layout({"confusion": (2,)}).flatten({"confusion": number})


@pytest.mark.parametrize(
    "number",
    [
        MOST + 1,
        -MOST - 1,
        (1 << 63) - 1,
        -(1 << 63) + 1,
        -(1 << 63),
        1 << 63,
        (1 << 64) - 1,
        1 << 70,
        -(1 << 70),
    ],
)
def test_numbers_that_255_hospitals_could_not_sum_are_refused(number: int) -> None:
    with pytest.raises(ProtocolError, match=r"Total loss of shape \(\) .*integers up to 2\^54"):
        Layout({"loss": ()}).flatten({"loss": number})
    with pytest.raises(ProtocolError, match=r"Total loss of shape \(3,\) .*integers up to 2\^54"):
        Layout({"loss": (3,)}).flatten({"loss": [0, number, 0]})


@pytest.mark.parametrize("number", [2.7, 2.0, math.inf, -math.inf, math.nan, True, "3", None, 1j])
def test_what_is_no_integer_is_refused_by_name(number: Any) -> None:
    for given_number in (number, np.array(number)):
        with pytest.raises(ProtocolError, match=r"Total loss of shape \(\) .*integers up to 2\^54"):
            Layout({"loss": ()}).flatten({"loss": given_number})


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.uint64])
def test_integers_of_any_width_are_taken(kind: type[np.integer[Any]]) -> None:
    assert Layout({"images": (2,)}).flatten({"images": np.array([0, 100], kind)}).tolist() == [0, 100]


@pytest.mark.parametrize("number", [MOST, -MOST])
def test_255_hospitals_largest_numbers_stay_within_63_bits(number: int) -> None:
    vector = Layout({"loss": ()}).flatten({"loss": number})
    assert (vector * 255).tolist() == [255 * number]
    assert abs(255 * number) < 1 << 63


def test_an_enrolment_sums_image_counts() -> None:
    assert enrol_layout().shapes == {"images": (), "validation": ()}


def test_training_sums_counts_counters_and_exponents() -> None:
    layout = train_layout(TEMPLATE)
    assert list(layout.shapes.items()) == [
        ("images", ()),
        ("seen", ()),
        ("correct", ()),
        ("loss", ()),
        ("milliseconds", ()),
        ("saturated", ()),
        ("counters/a.steps", (2,)),
        ("counters/norm.count", ()),
        ("exponents", (2, EXPONENT_BINS)),
    ]
    assert layout.size == 6 + 3 + 2 * EXPONENT_BINS


def test_layouts_do_not_depend_on_the_networks_order() -> None:
    backwards = dict(reversed(TEMPLATE.items()))
    assert list(train_layout(backwards).shapes.items()) == list(train_layout(TEMPLATE).shapes.items())
    assert value_names(backwards) == value_names(TEMPLATE)
    assert counter_names(backwards) == counter_names(TEMPLATE)


def test_an_evaluation_sums_confusions_and_histograms() -> None:
    assert evaluation_layout(4).shapes == {
        "loss": (),
        "milliseconds": (),
        "confusion": (4, 4),
        "positives": (4, AUROC_BINS),
        "negatives": (4, AUROC_BINS),
    }


def test_floating_arrays_are_values_and_integers_are_counters() -> None:
    assert value_names(TEMPLATE) == ["conv.weight", "norm.weight"]
    assert counter_names(TEMPLATE) == ["a.steps", "norm.count"]


@settings(deadline=None, max_examples=60)
@given(st.floats(-(2.0**33), 2.0**33))
def test_losses_are_off_by_half_a_unit_at_most(loss: float) -> None:
    fixed = fixed_loss(loss)
    assert isinstance(fixed, int)
    assert abs(fixed / LOSS_SCALE - loss) <= 0.5 / LOSS_SCALE


def test_losses_are_in_units_of_two_to_the_minus_twenty() -> None:
    assert LOSS_SCALE == 2**20
    assert fixed_loss(2.5) == 5 * 2**19
