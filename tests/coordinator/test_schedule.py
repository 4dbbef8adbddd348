from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from tests.coordinator.fakes import make_settings

from fedlens.coordinator.schedule import draw_participants, learning_rate, plan_round
from fedlens.coordinator.strategies import make_strategy
from fedlens.study import TrainingSettings


def plans(training: dict[str, Any], **federation: Any) -> list[Any]:
    settings = make_settings(training=training, **federation)
    strategy = make_strategy(settings)
    return [plan_round(settings, strategy, number + 1) for number in range(settings.federation.rounds)]


def test_warm_up_then_cosine() -> None:
    settings = TrainingSettings(learning_rate=2.0, schedule="cosine", warmup=0.2)
    rates = [learning_rate(settings, progress) for progress in (0, 0.1, 0.2, 0.6, 1.0)]
    assert rates == pytest.approx([0.0, 1.0, 2.0, 1.0, 0.0])


def test_peak_takes_the_place_of_the_settings_rate() -> None:
    settings = TrainingSettings(learning_rate=2.0)
    assert learning_rate(settings, 0.7) == 2.0
    assert learning_rate(settings, 0.7, peak=0.3) == 0.3


@limits(deadline=None, max_examples=50)
@given(
    st.sampled_from(["constant", "cosine"]), st.floats(0, 1), st.integers(1, 30), st.sampled_from([0.0, 0.02])
)
def test_plans_join_up_and_always_train(schedule: str, warmup: float, rounds: int, own: float) -> None:
    peak = own or 0.1
    made = plans({"schedule": schedule, "warmup": warmup}, rounds=rounds, learning_rate=own)
    for plan in made:
        assert 0 <= plan.learning_rate_start <= peak * (1 + 1e-12)
        assert max(plan.learning_rate_start, plan.learning_rate_end) > 0
    assert sum(plan.passes for plan in made) == pytest.approx(10)
    assert [plan.round for plan in made] == list(range(1, rounds + 1))
    if schedule == "constant":
        for plan, following in pairwise(made):
            assert plan.learning_rate_end == pytest.approx(following.learning_rate_start)


@limits(deadline=None, max_examples=50)
@given(st.integers(2, 20), st.floats(0.01, 1), st.integers(1, 200))
def test_participants_are_enough_in_order_and_repeatable(count: int, fraction: float, number: int) -> None:
    names = [f"h{index}" for index in range(count)]
    settings = make_settings(participation=fraction, minimum_hospitals=2)
    drawn = draw_participants(names, settings, number)
    assert drawn == draw_participants(names, settings, number)
    assert len(set(drawn)) == len(drawn) == max(2, round(fraction * count))
    assert list(drawn) == [name for name in names if name in drawn]


def test_every_hospital_gets_its_turn() -> None:
    settings = make_settings(participation=0.25, minimum_hospitals=1)
    names = list("ABCDEFGH")
    drawn = [draw_participants(names, settings, number) for number in range(1, 41)]
    assert set().union(*drawn) == set(names)
    assert len(set(drawn)) > 10
