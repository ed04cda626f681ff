"""Skellam noise against its exact probabilities, and shares whose sum has the plan's variance."""

import numpy as np
import pytest
from scipy import stats

from fedtwin_client.training.noise import CryptographicNoise, SeededNoise
from fedtwin_client.training.skellam import skellam


@pytest.mark.parametrize("variance", [100.0, 173.0, 5000.0])
def test_probabilities(variance: float) -> None:
    """Every value within six standard deviations as often as it should be (chi-square)."""
    drawn = skellam(np.random.Generator(np.random.PCG64(3)), variance, 400_000)
    mean = np.ceil(variance / 2)
    sd = (2 * mean) ** 0.5
    edges = np.unique(np.round(np.linspace(-3 * sd, 3 * sd, 60)))
    chances = np.diff(np.r_[0, stats.skellam.cdf(edges, mean, mean), 1])
    counts = np.histogram(drawn, np.r_[-np.inf, edges + 0.5, np.inf])[0]
    assert stats.chisquare(counts, chances * drawn.size).pvalue > 1e-4


@pytest.mark.parametrize("variance", [1e6, 2.4e13, 1e20])
def test_large_variances_keep_their_digits(variance: float) -> None:
    drawn = skellam(np.random.Generator(np.random.PCG64(4)), variance, 200_000)
    assert abs(drawn.var() / variance - 1) < 0.02
    assert stats.kstest(drawn / variance**0.5, "norm").pvalue > 1e-4


def test_the_variance_is_never_smaller_than_asked_for() -> None:
    drawn = skellam(np.random.Generator(np.random.PCG64(5)), 100.5, 2_000_000)
    assert drawn.var() > 100.5


@pytest.mark.parametrize("variance", [0.0, 99.0, float("nan"), float("inf"), 2.0**101])
def test_variances_that_hide_nothing_are_refused(variance: float) -> None:
    with pytest.raises(ValueError, match="variance"):
        skellam(np.random.Generator(np.random.PCG64(5)), variance, 1)


def test_sources() -> None:
    """The same seed gives the same noise; a key of the system's generator never does."""
    assert (SeededNoise(1).skellam(1e6, 50) == SeededNoise(1).skellam(1e6, 50)).all()
    first, second = (CryptographicNoise(key).skellam(1e6, 50) for key in (b"a" * 32, b"b" * 32))
    assert (first != second).any()
