"""Exact Gaussian privacy against published values and an independent program."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from fedtwin_protocol.privacy import (
    full_batch_mu,
    gaussian_delta,
    gaussian_epsilon,
    gaussian_mu,
    noise_multiplier_for,
)


@pytest.mark.parametrize(
    ("epsilon", "delta", "mu"),
    [
        (1, 1e-5, 0.2681),
        (1, 1e-3, 0.3884),
        (0.5, 1e-5, 0.1422),
        (3, 1e-5, 0.7191),
        (8, 1e-5, 1.666),
    ],
)
def test_known_values_of_mu(epsilon, delta, mu):
    assert gaussian_mu(epsilon, delta) == pytest.approx(mu, rel=4e-4)


@given(st.floats(0.05, 8), st.floats(0, 20))
def test_delta_equals_scipy(mu, epsilon):
    far = -epsilon / mu - mu / 2
    expected = norm.cdf(mu / 2 - epsilon / mu) - np.exp(epsilon + norm.logcdf(far))
    assert gaussian_delta(mu, epsilon) == pytest.approx(max(0.0, expected), rel=1e-6, abs=1e-14)


@given(st.floats(0.01, 20), st.floats(1e-9, 1e-2))
def test_epsilon_is_an_upper_bound_that_cannot_be_lowered(mu, delta):
    epsilon = gaussian_epsilon(mu, delta)
    assert gaussian_delta(mu, epsilon) <= delta
    if epsilon > 1e-6:
        assert gaussian_delta(mu, epsilon * (1 - 1e-6)) > delta * (1 - 1e-12)


@given(st.floats(0.05, 20), st.floats(1e-9, 1e-2), st.integers(1, 100))
def test_noise_fits_the_budget_and_hardly_more(epsilon, delta, sums):
    multiplier = noise_multiplier_for(epsilon, delta, sums)
    spent = gaussian_epsilon(full_batch_mu(sums, multiplier), delta)
    assert spent <= epsilon
    assert spent > epsilon * 0.99


def test_the_count_is_paid_from_the_same_budget():
    multiplier = noise_multiplier_for(1, 1e-5, 8, count_noise=20)
    assert multiplier == pytest.approx(10.74, rel=1e-3)
    assert gaussian_epsilon(full_batch_mu(8, multiplier, 20), 1e-5) <= 1


def test_a_count_that_costs_more_than_the_budget_is_told():
    with pytest.raises(ValueError, match="count"):
        noise_multiplier_for(1, 1e-5, 8, count_noise=2)


def test_no_noise_is_no_privacy():
    assert gaussian_epsilon(full_batch_mu(1, 0), 1e-5) == np.inf
    assert gaussian_epsilon(0, 1e-5) == 0
