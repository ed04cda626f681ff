"""Tail probabilities that the audits need, without a statistics library.

The regularised incomplete gamma functions follow the series and the continued fraction by Lentz's
method (Abramowitz and Stegun 1964, 6.5.29 and 6.5.31); each is used where it converges fast, so
that the smaller of the two tails is never one minus a number near one.
"""

from math import erfc, exp, inf, lgamma, log, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_MOST_TERMS: Final = 1_000_000
_PRECISION: Final = 1e-15
_TINY: Final = 1e-300


def normal_tail(value: float) -> float:
    """Chance that a standard normal number exceeds `value`."""
    return erfc(value / sqrt(2)) / 2


def normal_quantile(chance: float) -> float:
    """The number that a standard normal one stays below with `chance`, by bisection."""
    low, high = -40.0, 40.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if normal_tail(-middle) < chance else (low, middle)
    return (low + high) / 2


def chi_square_tails(value: float, freedom: float) -> tuple[float, float]:
    """Chances that a chi-square number is below, and above, `value`.

    Args:
        value: at least 0.
        freedom: degrees of freedom, above 0.

    Raises:
        ValueError: a number out of range.
    """
    if not freedom > 0 or not value >= 0:
        raise ValueError(f"expected freedom > 0 and value >= 0, got {freedom} and {value}")
    shape, point = freedom / 2, value / 2
    if point == 0:
        return 0.0, 1.0
    if point == inf:
        return 1.0, 0.0
    scale = shape * log(point) - point - lgamma(shape)
    if point < shape + 1:
        below = min(1.0, exp(min(scale + log(_series(shape, point)), 0.0)))
        return below, 1 - below
    above = min(1.0, exp(min(scale + log(_fraction(shape, point)), 0.0)))
    return 1 - above, above


def two_sided(value: float, freedom: float) -> float:
    """Chance of a chi-square number as far out as `value`, on either side."""
    return min(1.0, 2 * min(chi_square_tails(value, freedom)))


def binomial_chances(trials: int, chance: float) -> Floats:
    """Chance of every number of successes, (trials + 1,)."""
    counts = np.arange(trials + 1)
    if chance <= 0 or chance >= 1:
        return np.asarray(counts == (trials if chance >= 1 else 0), np.float64)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1)))])
    logs = factorials[-1] - factorials - factorials[::-1]
    logs = logs + counts * log(chance) + (trials - counts) * np.log1p(-chance)
    return np.asarray(np.exp(logs), np.float64)


def _series(shape: float, point: float) -> float:
    """Sum of point^n / (shape (shape + 1) … (shape + n))."""
    term = total = 1 / shape
    for step in range(1, _MOST_TERMS):
        term *= point / (shape + step)
        total += term
        if term < total * _PRECISION:
            break
    return total


def _fraction(shape: float, point: float) -> float:
    """The continued fraction of the upper incomplete gamma function."""
    offset = point + 1 - shape
    above = 1 / _TINY
    below = 1 / offset if offset else 1 / _TINY
    total = below
    for step in range(1, _MOST_TERMS):
        factor = -step * (step - shape)
        offset += 2
        below = factor * below + offset
        below = 1 / (below if abs(below) > _TINY else _TINY)
        above = offset + factor / above
        above = above if abs(above) > _TINY else _TINY
        change = below * above
        total *= change
        if abs(change - 1) < _PRECISION * 4:
            break
    return total
