"""How well the best attacker could guess that a patient was in a study, from what it released.

The attacker knows everything else, the other patients' records too, and tests "in" against "out".
Of Gaussian sums over all patients the best test is known in closed form: with mu as in
`fedtwin_protocol.privacy`, a test that is wrong for a share a of the patients who were not there
finds at most

    G(a) = Phi(Phi^-1(a) + mu)

of those who were (Dong, Roth and Su 2022, arXiv 1905.02383, section 2.2). Of any other steps,

    power(a) = min over epsilon of exp(epsilon) a + delta(epsilon)

(the same, proposition 2.13, the dual of the curve that privacy loss distributions give). Skellam
noise differs from Gaussian noise by at most tau in total variation, which shifts both errors.

How far a belief can move is the privacy loss L, the change of the log odds. delta(epsilon) is
E max(0, 1 - exp(epsilon - L)), so a loss above epsilon + c has a chance of at most
delta(epsilon) / (1 - exp(-c)): epsilon itself is exceeded more often than delta says. What is
exceeded with a chance of at most delta is therefore at most

    min over epsilon with delta(epsilon) < delta of epsilon - log(1 - delta(epsilon) / delta),

and of Gaussian sums exactly mu^2 / 2 + mu Phi^-1(1 - delta), L being normal.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import erfc, exp, fsum, inf, log, log1p, sqrt
from statistics import NormalDist
from typing import Final

from fedtwin_client.node.ledger_account import StepsTaken
from fedtwin_protocol.privacy import gaussian_delta
from fedtwin_protocol.skellam import lost_delta

DeltasOf = Callable[[Sequence[StepsTaken], Sequence[float]], list[float]]
FALSE_ALARMS: Final = (0.01, 0.05)
PRIORS: Final = (0.5, 0.1)
GRID: Final = tuple(step / 20 for step in range(241))
"""Epsilons from 0 to 12 at which the dual is taken; fewer points only make the figure larger."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attack:
    """What the best attacker reaches.

    Attributes:
        power: for each of `FALSE_ALARMS`, the share of members that is found at most.
        exact: whether that is reached by the best test, or only a bound.
        posterior: for each of `PRIORS`, the largest belief that a patient was in the study, except
            with the plan's delta as chance.
    """

    power: tuple[float, ...]
    exact: bool
    posterior: tuple[float, ...]


def best_attack(steps: Sequence[StepsTaken], delta: float, deltas_of: DeltasOf) -> Attack:
    """The best attack on what was released.

    Args:
        steps: what one patient's record went into.
        delta: chance with which the belief may be larger.
        deltas_of: delta of steps at several epsilons, by PLD accounting.
    """
    sampled = any(item.sampling_rate < 1 for item in steps)
    tau = sqrt(fsum(item.steps * item.divergence for item in steps) / 2)
    if sampled:
        deltas = deltas_of(steps, GRID)
        power = tuple(_dual(rate, deltas) for rate in FALSE_ALARMS)
        loss = _loss(delta, deltas)
    else:
        mu = sqrt(fsum(item.steps / item.sigma**2 for item in steps))
        power = tuple(gaussian_power(rate, mu, tau) for rate in FALSE_ALARMS)
        loss = mu * mu / 2 + mu * NormalDist().inv_cdf(1 - delta)
        if tau > 0:
            lost = 2 * tau * tau
            deltas = [gaussian_delta(mu, one) + lost_delta(lost, one) for one in GRID]
            loss = _loss(delta, deltas)
    return Attack(
        power=power,
        exact=not sampled and tau < 1e-6,
        posterior=tuple(largest_posterior(prior, loss) for prior in PRIORS),
    )


def gaussian_power(false_alarms: float, mu: float, tau: float = 0.0) -> float:
    """The largest share of members found by a test with that share of false alarms."""
    if false_alarms + tau >= 1:
        return 1.0
    quantile = NormalDist().inv_cdf(false_alarms + tau)
    return min(1.0, erfc(-(quantile + mu) / sqrt(2)) / 2 + tau)


def largest_posterior(prior: float, loss: float) -> float:
    """What a belief can become when the odds change by a factor of at most exp(loss)."""
    odds = log(prior / (1 - prior)) + loss
    return 1 / (1 + exp(-min(odds, 700.0)))


def _dual(false_alarms: float, deltas: Sequence[float]) -> float:
    values = (
        exp(epsilon) * false_alarms + delta for epsilon, delta in zip(GRID, deltas, strict=True)
    )
    return min(1.0, *values)


def _loss(delta: float, deltas: Sequence[float]) -> float:
    """A privacy loss that is exceeded with a chance of at most `delta`."""
    return min(
        (
            epsilon - log1p(-found / delta)
            for epsilon, found in zip(GRID, deltas, strict=True)
            if found < delta
        ),
        default=inf,
    )
