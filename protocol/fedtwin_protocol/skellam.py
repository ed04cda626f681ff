"""How near the noise of a secure sum is to the Gaussian noise that a plan is priced with.

In a secure sum each site scales its clipped sum by 2^b / C, rounds it to integers, and adds a share
of Skellam noise: the difference of two Poisson counts. Shares add up to Skellam noise of the summed
variance, exactly. With S = 2^b and noise multiplier sigma, the noise in the sum has variance at
least V = (sigma S)^2 in integers.

**Sensitivity.** A patient changes a site's clipped sum by at most C, so the scaled sum by at most
S. Rounding to the nearest integer moves each of the d numbers by at most 1/2, before and after, so
the integers of one site differ by at most S + sqrt(d) (Euclidean norm), and a patient of m sites
changes the secure sum by at most m (S + sqrt(d)). The noise is therefore

    sigma_effective = sigma / (m (1 + sqrt(d) / S))

times the largest change.

**Skellam against Gaussian.** Adding Gaussian noise of variance V to the integers and rounding is
post-processing of a Gaussian mechanism with sigma_effective, and is priced as one. Let p be the
Skellam distribution of variance V and q the rounded normal of variance V. By Edgeworth expansion on
the integers (Kolassa and McCullagh 1990, Annals of Statistics 18, 981) the two differ, to first
order in 1/V, by the factor

    p / q = 1 + (He4(x) - He2(x)) / (24 V),        x = k / sqrt(V),

since p has the excess kurtosis 1/V, and q the variance V + 1/12. With E He4^2 = 24 and E He2^2 = 2
the Kullback-Leibler divergence is KL(p, q) = 26 / (2 * 576 V^2) = 0.02257 / V^2 to first order. The
exact value, from the probabilities with 40 digits, is below that and rises to it (V^2 KL is 0.01965
at V = 4, 0.02237 at 100, 0.02255 at 1,000); `DIVERGENCE` is the limit and a tenth. Divergences of
independent coordinates and of successive releases add up, also when later ones depend on earlier
ones (chain rule), and sampling patients mixes both sides alike, which makes them no larger (joint
convexity). So n sums of d numbers stay within total variation

    tau = sqrt(n d DIVERGENCE / 2) / V            (Pinsker's inequality)

of a Gaussian mechanism's output, whatever the data; and what is (epsilon, delta') for the Gaussian
mechanism is (epsilon, delta' + (1 + exp(epsilon)) tau) for the Skellam one. tau grows with the root
of n d: adding total variations coordinate by coordinate would grow with n d itself.

More noise than V (no site vanished, nobody colludes) is further independent noise on top, and
costs nothing. Clamping and reduction modulo 2^w act on what already has its noise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, expm1, fsum, inf, lgamma, log, log1p, sqrt
from typing import Final

DIVERGENCE: Final = 0.025
"""Bound on V^2 KL(Skellam of variance V, rounded normal of variance V), for V >= 4."""
SMALLEST_VARIANCE: Final = 64.0
"""In integers; below it the expansion is not relied upon."""


def largest_change(hospitals: int, numbers: int, scale_bits: int) -> float:
    """How far one patient moves the integers of a secure sum, Euclidean norm.

    Args:
        hospitals: at how many sites the patient may have been seen.
        numbers: in the sum.
        scale_bits: the scale's exponent.
    """
    return float(hospitals * (2.0**scale_bits + sqrt(numbers)))


def effective_noise(sigma: float, hospitals: int, numbers: int, scale_bits: int) -> float:
    """The noise of a secure sum as a multiple of a patient's largest change.

    Args:
        sigma: the plan's noise, as a multiple of one patient's part at one site.
        hospitals: at how many sites the patient may have been seen.
        numbers: in the sum.
        scale_bits: the scale's exponent.
    """
    return sigma * 2.0**scale_bits / largest_change(hospitals, numbers, scale_bits)


def divergence(variance: float, numbers: int) -> float:
    """Bound on KL(Skellam, rounded normal) of one sum of `numbers` numbers."""
    if variance < SMALLEST_VARIANCE:
        return inf
    return numbers * DIVERGENCE / variance**2


def lost_delta(total_divergence: float, epsilon: float) -> float:
    """What is added to delta because the noise is Skellam and not Gaussian.

    Args:
        total_divergence: sum of `divergence` over all releases.
        epsilon: at which delta is stated.
    """
    return (1 + exp(min(epsilon, 700.0))) * sqrt(total_divergence / 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Skellam:
    """Skellam noise on a sum of integers.

    Agarwal, Kairouz and Liu 2021 (arXiv 2110.04995, corollary 4.1), at whole orders a, for variance
    V, Euclidean sensitivity D and absolute sensitivity L:

        rdp(a) <= a D^2 / (2 V) + min(((2 a - 1) D^2 + 6 L) / (4 V^2), 3 L / (2 V)).

    (a - 1) rdp(a) is the logarithm of a moment, so convex in a, and 0 at 1: between whole orders
    the chord bounds it.

    Attributes:
        sigma: noise sd as a multiple of `sensitivity`.
        numbers: how many integers the sum holds.
        sensitivity: D, in integers.
    """

    sigma: float
    numbers: int
    sensitivity: float

    def whole(self, order: int) -> float:
        """The curve without sampling, at a whole order of at least 2."""
        return order / (2 * self.sigma**2) + self._extra(order)

    def sampled(self, order: float, rate: float) -> float:
        """The curve on a Poisson sample, at any order above 1.

        Whole orders from the moments of `whole` (Mironov, Talwar and Zhang 2019, arXiv 1908.10530,
        theorem 5: the reflection that swaps the two shifted distributions exists for every
        symmetric noise, so adding a patient is the worse direction).
        """
        below = int(order)
        part = order - below
        chord = (1 - part) * self._log_moment(below, rate)
        if part:
            chord += part * self._log_moment(below + 1, rate)
        return chord / (order - 1)

    def _log_moment(self, order: int, rate: float) -> float:
        if order == 1:
            return 0.0
        if rate == 1:
            return (order - 1) * self.whole(order)
        return sampled_log_moment(order, rate, lambda part: (part - 1) * self.whole(part))

    def _extra(self, order: int) -> float:
        squared = self.sensitivity**2
        variance = squared * self.sigma**2
        absolute = self.sensitivity * min(sqrt(self.numbers), self.sensitivity)
        return min(
            ((2 * order - 1) * squared + 6 * absolute) / (4 * variance * variance),
            3 * absolute / (2 * variance),
        )


def sampled_log_moment(order: int, rate: float, moment: Callable[[int], float]) -> float:
    """The logarithm of E (1 - q + q L)^a, where E L = 1.

    Mironov, Talwar and Zhang 2019 (arXiv 1908.10530), section 3.3: the sum over k of
    C(a, k) (1 - q)^(a - k) q^k E L^k, with 1 taken off every moment so that small values keep their
    digits.

    Args:
        order: a, whole and at least 2.
        rate: q, the chance that a patient takes part.
        moment: the logarithm of E L^k, for k from 2 to a.
    """
    terms = [_log_term(order, part, rate, moment(part)) for part in range(2, order + 1)]
    largest = max(terms)
    log_sum = largest + log(fsum(exp(term - largest) for term in terms))
    return log_sum if log_sum > 700 else log1p(exp(log_sum))


def _log_term(order: int, part: int, rate: float, exponent: float) -> float:
    choose = lgamma(order + 1) - lgamma(part + 1) - lgamma(order - part + 1)
    grown = log(expm1(exponent)) if exponent < 1 else _log_expm1(exponent)
    return choose + part * log(rate) + (order - part) * log1p(-rate) + grown


def _log_expm1(exponent: float) -> float:
    return exponent + log1p(-exp(-exponent))
