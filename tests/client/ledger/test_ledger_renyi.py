"""Rényi arithmetic against closed forms and, where installed, dp-accounting."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtwin_client.node.ledger_limits import BudgetLimits
from fedtwin_client.node.renyi import (
    NOTHING,
    ORDERS,
    check_curve,
    conversion,
    epsilon,
    filter_order,
    gaussian,
    sampled_gaussian,
    times,
    total,
    worst,
)
from fedtwin_protocol.errors import BudgetError


def exact_delta(epsilon_value: float, mu: float) -> float:
    """Balle and Wang 2018, theorem 8."""

    def normal(x: float) -> float:
        return math.erfc(-x / math.sqrt(2)) / 2

    return normal(mu / 2 - epsilon_value / mu) - math.exp(epsilon_value) * normal(
        -mu / 2 - epsilon_value / mu
    )


def curve_of(mu: float) -> tuple[float, ...]:
    return tuple(gaussian(order, 1 / mu) for order in ORDERS)


def test_orders_rise_and_are_fixed():
    assert list(ORDERS) == sorted(set(ORDERS))
    assert (ORDERS[0], ORDERS[-1], len(ORDERS)) == (1.25, 512.0, 59)


@settings(max_examples=60, deadline=None)
@given(mu=st.floats(0.02, 3), log_delta=st.floats(-7, -3))
def test_the_converted_epsilon_is_never_below_the_exact_one_and_close_to_it(mu, log_delta):
    delta = 10**log_delta
    bound = epsilon(curve_of(mu), delta)
    assert exact_delta(bound, mu) <= delta * (1 + 1e-9)
    assert exact_delta(bound / 1.4 - 0.02, mu) > delta or bound < 0.05


def test_nothing_costs_nothing():
    assert epsilon(NOTHING, 1e-5) == 0.0
    assert total([]) == NOTHING


def test_curves_add_and_the_worst_is_taken_at_each_order():
    first, second = curve_of(1.0), tuple(reversed(curve_of(1.0)))
    assert total([first, first]) == pytest.approx(times(first, 2))
    assert all(w >= max(a, b) for w, a, b in zip(worst(first, second), first, second, strict=True))


def test_the_filters_order_is_the_best_one_for_gaussians_that_fill_the_allowance():
    for allowed in (0.5, 1.0, 3.0, 8.0):
        index = filter_order(allowed, 1e-5)
        rho = (allowed - conversion(ORDERS[index], 1e-5)) / ORDERS[index]
        full = tuple(rho * order for order in ORDERS)
        assert epsilon(full, 1e-5) == pytest.approx(allowed)
        limits = BudgetLimits(epsilon_per_study=1, epsilon_lifetime=allowed, delta_lifetime=1e-5)
        assert limits.share(full) == pytest.approx(1.0)


def test_an_allowance_too_small_for_any_order_admits_nothing():
    limits = BudgetLimits(epsilon_per_study=1, epsilon_lifetime=1e-4, delta_lifetime=1e-9)
    assert limits.share(curve_of(0.001)) == math.inf
    assert limits.share(NOTHING) == 0.0


@pytest.mark.parametrize("order", [2, 3, 7, 32])
def test_a_sampled_gaussian_is_the_integral_it_stands_for(order):
    """The moment by numerical integration of (1 - q + q p1/p0)^a over p0."""
    sigma, rate, step = 1.7, 0.05, 1e-3
    grid = [(-30 + step * i) for i in range(int(120 / step))]

    def integrand(x: float) -> float:
        ratio = math.log1p(rate * math.expm1((2 * x - 1) / (2 * sigma**2)))
        return math.exp(order * ratio - x * x / (2 * sigma**2))

    moment = math.fsum(map(integrand, grid)) * step / (sigma * math.sqrt(2 * math.pi))
    assert sampled_gaussian(order, sigma, rate) == pytest.approx(
        math.log(moment) / (order - 1), rel=1e-6
    )


def test_sampled_curves_agree_with_dp_accounting():
    rdp = pytest.importorskip("dp_accounting.rdp")
    dp = pytest.importorskip("dp_accounting")
    for rate, sigma, steps in (
        (0.01, 1.0, 1000),
        (0.25, 4.0, 200),
        (0.005, 0.7, 1),
        (1.0, 9.0, 10),
    ):
        accountant = rdp.RdpAccountant(list(ORDERS))
        event = dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(sigma))
        accountant.compose(event, steps)
        curve = tuple(float(value) for value in accountant._rdp)
        check_curve(curve, sigma, rate, steps)
        for order, value in zip(ORDERS, curve, strict=True):
            if order >= 2 and order == int(order) and rate < 1:
                assert steps * sampled_gaussian(int(order), sigma, rate) == pytest.approx(
                    value, rel=1e-6
                )
        assert epsilon(curve, 1e-5) == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-9)


@pytest.mark.parametrize(
    ("curve", "why"),
    [
        (curve_of(1.0)[:-1], "finite values"),
        ((*curve_of(1.0)[:-1], math.inf), "finite values"),
        (tuple(value * 0.999 for value in curve_of(1.0)), "computed wrongly"),
        (curve_of(1.0)[::-1], "computed wrongly"),
    ],
)
def test_a_curve_that_cannot_be_is_refused(curve, why):
    with pytest.raises(BudgetError, match=why):
        check_curve(curve, 1.0, 1.0, 1)


def test_a_sampled_curve_of_fewer_steps_than_claimed_is_refused():
    curve = [0.0] * len(ORDERS)
    for index, order in enumerate(ORDERS):
        at_most = int(order) + (order != int(order))
        curve[index] = 99 * sampled_gaussian(max(2, at_most), 1.0, 0.01)
    check_curve(tuple(curve), 1.0, 0.01, 99)
    with pytest.raises(BudgetError, match="100 steps"):
        check_curve(tuple(curve), 1.0, 0.01, 100)
