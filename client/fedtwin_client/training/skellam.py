"""Skellam noise: whole numbers whose sums over any number of sites are Skellam again.

A Skellam variable of variance V is the difference of two independent Poisson variables of mean V/2.
Each is drawn by Hörmann's transformed rejection (PTRS; Insurance: Mathematics and Economics 12:39,
1993), written for the distance x from the mean: for means of 10^13 the usual form loses the answer
to cancellation. With a whole mean L and u = x / L, by Stirling's series (Loader 2000)

    log P(L + x) = -L ((1 + u) log(1 + u) - u) - log(2 pi (L + x)) / 2 - 1 / (12 (L + x)) + ...

The mean is rounded up, so that the variance is never smaller than asked for.
"""

from math import ceil, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedtwin_protocol.secure_terms import LEAST_SHARE_VARIANCE

_SERIES: Final = 0.01
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


def skellam(generator: np.random.Generator, variance: float, size: int) -> Integers:
    """Skellam variables of mean 0.

    Args:
        generator: of uniform numbers.
        variance: at least 100, in squared integer steps.
        size: how many.

    Raises:
        ValueError: the variance is too small for whole numbers to hide anything.
    """
    if not LEAST_SHARE_VARIANCE <= variance < 2.0**100:
        raise ValueError(
            f"expected a variance of at least {LEAST_SHARE_VARIANCE}, got {variance:g}"
        )
    mean = float(ceil(variance / 2))
    return _poisson_less_mean(generator, mean, size) - _poisson_less_mean(generator, mean, size)


def _poisson_less_mean(generator: np.random.Generator, mean: float, size: int) -> Integers:
    """Poisson variables of a whole mean, less that mean."""
    found = np.empty(size, np.int64)
    missing = np.arange(size)
    while missing.size:
        distance, accepted = _attempt(generator, mean, missing.size)
        found[missing[accepted]] = distance[accepted]
        missing = missing[~accepted]
    return found


def _attempt(
    generator: np.random.Generator, mean: float, size: int
) -> tuple[Integers, NDArray[np.bool_]]:
    """One draw each, and whether it counts (steps 1 to 3 of PTRS)."""
    width = 0.931 + 2.53 * sqrt(mean)
    slope = -0.059 + 0.02483 * width
    inverse = 1.1239 + 1.1328 / (width - 3.4)
    inside = 0.9277 - 3.6224 / (width - 2)
    place = generator.random(size) - 0.5
    height = 1.0 - generator.random(size)
    edge = np.maximum(0.5 - np.abs(place), 2.0**-60)
    distance = np.floor((2 * slope / edge + width) * place + 0.43)
    accepted = (edge >= 0.07) & (height <= inside)
    possible = ~accepted & (distance >= -mean) & ~((edge < 0.013) & (height > edge))
    some = np.flatnonzero(possible)
    bound = np.log(height[some] * inverse / (slope / edge[some] ** 2 + width))
    accepted[some] = bound <= _log_probability(distance[some], mean)
    return distance.astype(np.int64), accepted


def _log_probability(distance: Floats, mean: float) -> Floats:
    relative = distance / mean
    near = np.abs(relative) < _SERIES
    exponent = np.empty_like(relative)
    small = relative[near]
    series = np.zeros_like(small)
    for order in range(10, 1, -1):
        series = (-1) ** order / (order * (order - 1)) + small * series
    exponent[near] = small * small * series
    large = np.maximum(relative[~near], -1 + 1 / (4 * mean))
    exponent[~near] = (1 + large) * np.log1p(large) - large
    value = np.maximum(mean + distance, 0.25)
    stirling = 1 / (12 * value) - 1 / (360 * value**3) + 1 / (1260 * value**5)
    found: Floats = -mean * exponent - np.log(2 * np.pi * value) / 2 - stirling
    return found
