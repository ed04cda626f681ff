"""What one site's held-out patients say of a candidate: bounded, whatever the record or model."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fedtwin_protocol.votes import exact_vote

ODD = st.one_of(
    st.floats(-40, 40), st.sampled_from([np.nan, np.inf, -np.inf, 1e308, -1e308, 1e-320])
)


def test_a_model_that_was_turned_around_is_worse_for_each() -> None:
    good = np.array([2.0, 1.0, -1.0, -3.0])
    outcomes = np.array([1.0, 1.0, 0.0, 0.0])
    assert exact_vote(-good, good, outcomes) == pytest.approx(4.0)
    assert exact_vote(good, -good, outcomes) == pytest.approx(-4.0)
    assert exact_vote(good, good, outcomes) == 0.0


def test_a_small_change_is_the_difference_of_the_log_likelihoods() -> None:
    good, candidate = np.array([0.0]), np.array([0.2])
    risk = 1 / (1 + np.exp(-0.2))
    assert exact_vote(candidate, good, np.array([1.0])) == pytest.approx(np.log(0.5 / risk))


def test_without_patients_there_is_nothing_but_noise() -> None:
    assert exact_vote(np.zeros(0), np.zeros(0), np.zeros(0)) == 0.0


def test_a_candidate_without_numbers_is_the_worst() -> None:
    broken = np.array([np.nan, np.inf, -np.inf])
    assert exact_vote(broken, np.zeros(3), np.array([1.0, 1.0, 0.0])) == 3.0


@given(
    arrays.arrays(np.float64, (6, 2), elements=ODD),
    arrays.arrays(np.float64, 6, elements=st.sampled_from([0.0, 1.0])),
)
def test_one_patient_moves_the_sum_by_at_most_one(scores: np.ndarray, outcomes: np.ndarray) -> None:
    """Added or removed, whatever the log-odds: the sensitivity that the ledger charges."""
    whole = exact_vote(scores[:, 0], scores[:, 1], outcomes)
    assert np.isfinite(whole)
    for place in range(6):
        kept = np.arange(6) != place
        rest = exact_vote(scores[kept, 0], scores[kept, 1], outcomes[kept])
        assert abs(whole - rest) <= 1 + 1e-9
