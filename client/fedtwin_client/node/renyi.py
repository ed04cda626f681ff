"""Rényi differential privacy in plain arithmetic: what the ledger needs to add up and to refuse.

A curve is a tuple of floats, the Rényi divergence bound at each of `ORDERS`. Curves of mechanisms
that run on the same patient add up, order by order (Mironov 2017, arXiv 1702.07476).

Conversion to (epsilon, delta), at any one order a (Balle et al. 2020, arXiv 1905.09982, theorem 21;
Canonne, Kamath and Steinke 2020, arXiv 2004.00010, proposition 12):

    epsilon = rdp(a) + log((a - 1) / a) - (log delta + log a) / (a - 1)

Filter: parameters of a later study may depend on what an earlier one released. Composition then
holds at one order chosen beforehand (Feldman and Zrnic 2021, arXiv 2008.11193), so the ledger
refuses by `filter_order`, which depends on the hospital's limits alone; the best of all orders is
for display.

Neighbouring data sets differ in one patient, added or removed.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final

from fedtwin_protocol.errors import BudgetError
from fedtwin_protocol.skellam import Skellam, sampled_log_moment

ORDERS: Final[tuple[float, ...]] = (
    *(1 + step / 4 for step in range(1, 17)),
    *(5 + step / 2 for step in range(1, 11)),
    *(float(order) for order in range(11, 33)),
    *(36.0, 40.0, 48.0, 56.0, 64.0, 80.0, 96.0, 128.0, 192.0, 256.0, 512.0),
)
NOTHING: Final[tuple[float, ...]] = (0.0,) * len(ORDERS)
ROUNDING: Final = 1e-6
"""Relative difference that two programs' floating point may show in the same curve."""


def total(curves: Iterable[Sequence[float]]) -> tuple[float, ...]:
    """Add curves order by order; of none, the curve of doing nothing."""
    sums = list(NOTHING)
    for curve in curves:
        sums = [left + right for left, right in zip(sums, curve, strict=True)]
    return tuple(sums)


def times(curve: Sequence[float], count: int) -> tuple[float, ...]:
    """The curve of doing the same thing `count` times."""
    return tuple(count * value for value in curve)


def worst(first: Sequence[float], second: Sequence[float]) -> tuple[float, ...]:
    """The larger of two curves at each order: a bound for whichever patient had either."""
    return tuple(max(pair) for pair in zip(first, second, strict=True))


def conversion(order: float, delta: float) -> float:
    """What is added to the curve at `order` to make it an epsilon at `delta`."""
    return math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)


def epsilon(curve: Sequence[float], delta: float) -> float:
    """The smallest epsilon at `delta` that any order of `ORDERS` gives; 0 for an empty curve."""
    if not any(curve):
        return 0.0
    candidates = (
        value + conversion(order, delta) for order, value in zip(ORDERS, curve, strict=True)
    )
    return max(0.0, min(candidates))


def filter_order(epsilon_allowed: float, delta: float) -> int:
    """The index in `ORDERS` at which an allowance is enforced.

    It is the order that admits the most Gaussian mechanisms, whose curves grow in proportion to
    the order.
    """

    def admitted(index: int) -> float:
        return (epsilon_allowed - conversion(ORDERS[index], delta)) / ORDERS[index]

    return max(range(len(ORDERS)), key=admitted)


def gaussian(order: float, sigma: float) -> float:
    """One Gaussian mechanism whose noise has `sigma` times the sensitivity (Mironov 2017)."""
    return order / (2 * sigma * sigma)


def sampled_gaussian(order: int, sigma: float, rate: float) -> float:
    """One Gaussian mechanism on a Poisson sample, at a whole order of at least 2.

    Mironov, Talwar and Zhang 2019 (arXiv 1908.10530), section 3.3:
    exp((a - 1) rdp) = sum over k of C(a, k) (1 - q)^(a - k) q^k exp(k (k - 1) / (2 sigma^2)),
    with 1 taken off every exponential so that small values keep their digits.
    """
    moment = sampled_log_moment(order, rate, lambda part: part * (part - 1) / (2 * sigma * sigma))
    return moment / (order - 1)


def check_curve(
    curve: Sequence[float],
    sigma: float,
    rate: float,
    steps: int,
    noise: Skellam | None = None,
) -> None:
    """Recompute a handed-in curve of noised steps where plain arithmetic can.

    All orders are recomputed for Skellam noise or a sampling rate of 1, whole orders for smaller
    rates; a Rényi divergence never falls with the order, so the whole order below bounds the rest.

    Raises:
        BudgetError: the curve has another grid, or is below the truth.
    """
    if len(curve) != len(ORDERS) or not all(math.isfinite(value) for value in curve):
        raise BudgetError(
            f"expected {len(ORDERS)} finite values of a Rényi curve, one for each order of the "
            f"ledger, got {len(curve)}: compute the curve at the ledger's own orders"
        )
    floor = 0.0
    for order, value in zip(ORDERS, curve, strict=True):
        least = _least(order, sigma, rate) if noise is None else noise.sampled(order, rate)
        floor = max(floor, least * steps)
        if value < floor * (1 - ROUNDING):
            raise BudgetError(
                f"a Rényi curve says {value:.6g} at order {order:g} where noise {sigma:g}, "
                f"sampling rate {rate:g} and {steps} steps cost at least {floor:.6g}: the price of "
                "the study was computed wrongly"
            )


def _least(order: float, sigma: float, rate: float) -> float:
    if rate == 1:
        return gaussian(order, sigma)
    return sampled_gaussian(int(order), sigma, rate) if order >= 2 else 0.0
