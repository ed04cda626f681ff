"""What plans cost: Rényi curves that the ledger can use, whatever the sampling."""

import dp_accounting
import pytest
from dp_accounting.rdp import RdpAccountant

from fedtwin_client.node.renyi import ORDERS, check_curve
from fedtwin_client.training.accounting import rdp_curve


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.15, 4.0, 10.0])
def test_every_sampled_curve_is_one_that_the_ledger_takes(rate, sigma):
    curve = rdp_curve(sigma, rate, 3, ORDERS)
    check_curve(curve, sigma, rate, 3)
    whole = rdp_curve(sigma, 1.0, 3, ORDERS)
    assert all(0 < part <= full for part, full in zip(curve, whole, strict=True))


def test_where_the_series_converges_the_curve_is_dp_accountings():
    event = dp_accounting.PoissonSampledDpEvent(0.05, dp_accounting.GaussianDpEvent(2.0))
    accountant = RdpAccountant([2, 3, 8, 16, 32])
    accountant.compose(event, 10)
    assert rdp_curve(2.0, 0.05, 10, [2, 3, 8, 16, 32]) == pytest.approx(accountant._rdp)


def test_an_order_that_does_not_converge_is_bounded_from_above():
    """At this rate and noise the series fails at orders 1.25 and 1.5; whole orders are exact."""
    orders = [1.25, 1.5, 2.0]
    curve = rdp_curve(2.150141, 0.25, 1, orders)
    exact = rdp_curve(2.150141, 0.25, 1, [2.0])[0]
    assert curve[2] == exact
    assert all(0 < value <= exact for value in curve)
