"""Exact privacy of full-batch Gaussian sums, in plain arithmetic.

T Gaussian sums over all patients, each with noise of sd sigma times the clipping norm, are together
mu-Gaussian differentially private with mu = sqrt(T) / sigma (Dong, Roth and Su 2019, arXiv
1905.02383, corollary 3.3), and

    delta(epsilon) = Phi(mu/2 - epsilon/mu) - exp(epsilon) Phi(-mu/2 - epsilon/mu)

(Balle and Wang 2018, arXiv 1805.06530, theorem 8). Neighbouring data sets differ in one patient,
added or removed; a patient's contribution to each sum is at most the clipping norm. Nothing is said
about steps on sampled patients: the accountant at the sites composes those. Sums with Skellam noise
lose a part of delta (`skellam`).
"""

from collections.abc import Callable
from math import ceil, erfc, exp, inf, isfinite, log, sqrt

from fedtwin_protocol.skellam import lost_delta

UPWARD = 1.0005
MARGIN = 1e-3
"""Of epsilon, within which the part of delta that Skellam noise loses is taken from above."""


def gaussian_delta(mu: float, epsilon: float) -> float:
    """The smallest delta at which mu-Gaussian privacy gives `epsilon`."""
    if mu == 0:
        return 0.0
    tail = _phi(-mu / 2 - epsilon / mu)
    second = exp(min(epsilon + log(tail), 700.0)) if tail > 0 else 0.0
    return max(0.0, _phi(mu / 2 - epsilon / mu) - second)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The smallest epsilon that mu-Gaussian privacy gives at `delta`, from above."""
    if mu == 0 or gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    if not isfinite(mu):
        return inf
    low, high = 0.0, mu * mu / 2 + mu * sqrt(2 * log(1 / delta)) + 1
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_delta(mu, middle) > delta else (low, middle)
    return high


def with_lost_delta(epsilon_at: Callable[[float], float], delta: float, divergence: float) -> float:
    """Epsilon at `delta` of releases that are only nearly those which `epsilon_at` prices.

    Args:
        epsilon_at: epsilon at a delta, of Gaussian noise.
        delta: the other half of the statement.
        divergence: of what was released from that (`skellam.divergence`), summed.

    Returns:
        an epsilon for which delta of the Gaussian noise and what is lost are together at most
        `delta`; infinite where the loss alone exceeds it.
    """
    if divergence == 0:
        return epsilon_at(delta)
    reached = 0.0
    for _ in range(100):
        left = delta - lost_delta(divergence, reached + MARGIN)
        if left <= 0:
            return inf
        epsilon = epsilon_at(left)
        if epsilon <= reached + MARGIN:
            return epsilon
        reached = epsilon
    return inf


def gaussian_mu(epsilon: float, delta: float) -> float:
    """The largest mu whose epsilon at `delta` is no more than `epsilon`, from below."""
    low, high = 0.0, 1.0
    while gaussian_epsilon(high, delta) <= epsilon:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_epsilon(middle, delta) <= epsilon else (low, middle)
    return low


def full_batch_mu(sums: int, noise_multiplier: float, count_noise: float = inf) -> float:
    """Mu of so many full-batch sums and one count with noise of sd `count_noise`."""
    training = sums / noise_multiplier**2 if noise_multiplier > 0 else inf
    count = 1 / count_noise**2 if count_noise > 0 else inf
    return sqrt(training + count)


def noise_multiplier_for(
    epsilon: float, delta: float, sums: int, count_noise: float = inf, hospitals: int = 1
) -> float:
    """Noise for a plan of full-batch sums, rounded up in the fourth digit.

    Args:
        epsilon: what the plan is to state.
        delta: the other half.
        sums: number of rounds.
        count_noise: noise sd of the cohort count, which is paid from the same budget.
        hospitals: at how many sites one patient may have been seen.

    Raises:
        ValueError: the count alone costs more than epsilon.
    """
    left = (gaussian_mu(epsilon, delta) / hospitals) ** 2 - 1 / count_noise**2
    if left <= 0:
        raise ValueError(
            f"a count with noise {count_noise:g} alone costs more than epsilon {epsilon:g}"
        )
    exact = sqrt(sums / left) * UPWARD
    digits: float = 10.0 ** (3 - int(f"{exact:e}".partition("e")[2]))
    return ceil(exact * digits) / digits


def _phi(value: float) -> float:
    return erfc(-value / sqrt(2)) / 2
