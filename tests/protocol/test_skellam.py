"""Skellam noise beside Gaussian noise: distances and Rényi curves against exact probabilities."""

import math

import mpmath
import numpy as np
import pytest
from scipy import stats
from scipy.special import ive

from fedtwin_protocol.skellam import (
    DIVERGENCE,
    SMALLEST_VARIANCE,
    Skellam,
    divergence,
    effective_noise,
    largest_change,
    lost_delta,
)


def exact(variance: float) -> tuple[list[mpmath.mpf], list[mpmath.mpf]]:
    """Probabilities of 0, 1, 2, ... under Skellam and rounded normal noise, with 40 digits."""
    with mpmath.workdps(40):
        spread, root = mpmath.sqrt(variance), mpmath.sqrt(2)
        reach = int(13 * spread) + 20
        above = [mpmath.erfc((k - mpmath.mpf(1) / 2) / spread / root) / 2 for k in range(reach + 1)]
        skellam = [mpmath.exp(-variance) * mpmath.besseli(k, variance) for k in range(reach)]
        return skellam, [above[k] - above[k + 1] for k in range(reach)]


@pytest.mark.parametrize("variance", [4, 7.5, 64, 200, 641.25])
def test_the_divergence_from_rounded_gaussian_noise_is_bounded_by_no_more_than_a_quarter(variance):
    skellam, normal = exact(variance)
    terms = [
        (1 if k == 0 else 2) * (p * mpmath.log(p / q) - p + q)
        for k, (p, q) in enumerate(zip(skellam, normal, strict=True))
    ]
    true = float(mpmath.fsum(terms)) * variance**2
    assert true <= DIVERGENCE <= 1.3 * true
    assert true <= 26 / 1152, "the first term of the expansion is the limit, from below"
    variation = float(mpmath.fsum(abs(p - q) for p, q in zip(skellam, normal, strict=True)))
    assert variation * variance <= math.sqrt(DIVERGENCE / 2)


@pytest.mark.parametrize("shares", [1, 3, 16, 67])
def test_shares_of_several_sites_add_up_to_the_noise_that_is_priced(shares):
    variance, width = 70.0, 400
    grid = np.arange(-width, width + 1)
    one = ive(grid, variance / shares)
    total = np.array([1.0])
    for _ in range(shares):
        total = np.convolve(total, one)
    middle = len(total) // 2
    whole = ive(grid, variance)
    assert np.abs(total[middle - width : middle + width + 1] - whole).max() < 1e-12


def test_a_variance_that_the_expansion_does_not_cover_has_no_bound():
    assert divergence(SMALLEST_VARIANCE - 1, 1) == math.inf
    assert lost_delta(math.inf, 1.0) == math.inf
    assert divergence(100.0, 7) == pytest.approx(7 * DIVERGENCE / 1e4)


@pytest.mark.parametrize(("hospitals", "numbers", "bits"), [(1, 14, 4), (2, 100, 6), (5, 999, 10)])
def test_no_patient_moves_the_rounded_sums_further_than_the_priced_change(hospitals, numbers, bits):
    rng = np.random.default_rng(hospitals)
    scale = 2.0**bits
    worst = 0.0
    for _ in range(300):
        moved = np.zeros(numbers)
        for _ in range(hospitals):
            others = rng.normal(size=numbers) * 50
            direction = rng.normal(size=numbers)
            part = direction / np.linalg.norm(direction)
            moved += np.rint(scale * (others + part)) - np.rint(scale * others)
        worst = max(worst, float(np.linalg.norm(moved)))
    assert worst <= largest_change(hospitals, numbers, bits)
    sigma = effective_noise(3.0, hospitals, numbers, bits)
    assert sigma * largest_change(hospitals, numbers, bits) == pytest.approx(3.0 * scale)
    assert sigma <= 3.0 / (hospitals * (1 + math.sqrt(numbers) / scale)) * (1 + 1e-12)


def renyi(order: float, shift: int, variance: float, rate: float) -> float:
    """The larger of the two divergences of one number, exactly."""
    reach = int(shift + 14 * math.sqrt(variance))
    grid = np.arange(-reach, reach + 1)
    log_p = np.log(ive(np.abs(grid - shift), variance))
    log_q = np.log(ive(np.abs(grid), variance))
    mixed = np.logaddexp(np.log(rate) + log_p, np.log1p(-rate) + log_q) if rate < 1 else log_p
    both = [
        np.log(np.sum(np.exp(order * one - (order - 1) * other))) / (order - 1)
        for one, other in ((mixed, log_q), (log_q, mixed))
    ]
    return float(max(both))


@pytest.mark.parametrize("rate", [1.0, 0.5, 0.1])
@pytest.mark.parametrize(("shift", "variance"), [(1, 64.0), (8, 300.0), (20, 400.0), (40, 900.0)])
def test_the_renyi_curve_is_never_below_the_exact_divergence(shift, variance, rate):
    noise = Skellam(sigma=math.sqrt(variance) / shift, numbers=1, sensitivity=shift)
    for order in (1.25, 1.5, 2, 2.75, 3, 4.5, 8, 12):
        true = renyi(order, shift, variance, rate)
        assert true * (1 - 1e-9) <= noise.sampled(order, rate), (order, true)


def test_at_a_fine_scale_the_curve_is_the_gaussian_one():
    noise = Skellam(sigma=2.0, numbers=10_000, sensitivity=2.0**20)
    for order in (2, 8, 64):
        assert noise.sampled(order, 1.0) == pytest.approx(order / 8, rel=1e-5)


def test_the_hockey_stick_divergence_of_skellam_noise_is_covered_by_gaussian_and_lost_delta():
    """One number, shift 16, scale so coarse that the loss can be seen."""
    for shift, variance in ((16, 300.0), (10, 80.0)):
        grid = np.arange(-500, 501)
        p, q = ive(np.abs(grid - shift), variance), ive(np.abs(grid), variance)
        mu = shift / math.sqrt(variance)
        for epsilon in (0.0, 0.5, 1.0, 2.0, 4.0):
            true = float(np.maximum(p - math.exp(epsilon) * q, 0).sum())
            gaussian = stats.norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * stats.norm.cdf(
                -mu / 2 - epsilon / mu
            )
            lost = lost_delta(divergence(variance, 1), epsilon)
            assert true <= gaussian + lost
            if epsilon == 0.5:
                assert true > gaussian, "the Gaussian price alone would be too low"
