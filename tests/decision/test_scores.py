"""Log odds and their bins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.special import log_softmax
from tests.decision.simulated import outputs

from fedlens.decision.scores import (
    BINS,
    aps_scores,
    bin_edges,
    bin_of,
    lac_scores,
    log_odds,
    log_probabilities,
    scaled,
)
from fedlens.errors import DataError

LOGITS = arrays.arrays(
    np.float64, st.tuples(st.integers(1, 6), st.integers(2, 5)), elements=st.floats(-30, 30)
)


@given(LOGITS, st.floats(0.25, 4))
def test_scaling_needs_no_logits(logits: np.ndarray, temperature: float) -> None:
    from_logits = log_softmax(logits / temperature, axis=1)
    np.testing.assert_allclose(scaled(log_softmax(logits, axis=1), temperature), from_logits, atol=1e-9)


@given(LOGITS)
def test_scores_rank_as_their_papers_say(logits: np.ndarray) -> None:
    log_p = log_softmax(logits, axis=1)
    p = np.exp(log_p)
    lac = lac_scores(log_p).ravel()
    order = np.argsort(lac, kind="stable")
    assert (np.diff((1 - p).ravel()[order]) >= -1e-12).all()
    aps = aps_scores(log_p)
    for row, scores in zip(p, aps, strict=True):
        ranked = np.argsort(-row, kind="stable")
        assert (np.diff(scores[ranked]) >= -1e-12).all() and np.isinf(scores[ranked[-1]])
        inside = np.cumsum(row[ranked])[:-1]
        np.testing.assert_allclose(1 / (1 + np.exp(-scores[ranked[:-1]])), inside, atol=1e-9)


def test_log_odds_are_precise_near_certainty() -> None:
    logits = np.array([[0.0, -15.0, -16.0]])
    rest = np.exp([-15.0, -16.0]).sum()
    assert log_odds(log_softmax(logits, axis=1))[0, 0] == pytest.approx(-np.log(rest), abs=1e-9)


def test_bins_are_monotone_open_and_agree_with_their_edges() -> None:
    values = np.concatenate([[-np.inf, np.inf], np.linspace(-25, 25, 9999)])
    found = bin_of(values)
    assert found[0] == 0 and found[1] == BINS - 1 and (np.diff(found[2:]) >= 0).all()
    edges = bin_edges()
    inside = (edges[found] <= values + 1e-9) & (values <= edges[found + 1] + 1e-9)
    assert inside.all()


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(DataError, match="diverged"):
        bin_of(np.array([np.nan]))
    assert np.isfinite(log_probabilities(np.array([[0.0, 1.0]], np.float32))).all()
    assert outputs(3)[0].shape == (3, 4)
