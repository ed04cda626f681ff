"""What a plan costs: its epsilon, and Rényi curves for the ledger's filter.

Without sampling the composition of Gaussian steps is known exactly (`fedtwin_protocol.privacy`).
With it dp-accounting, which takes a second to load, composes the privacy loss distributions
(Google, "Connect the dots", arXiv 2207.04380) pessimistically: the figure is never below the truth.
Neighbouring data sets differ in one patient, added or removed, with all records at up to m
hospitals; sampling is Poisson. A training patient pays the cohort count and every round; a held-out
patient pays the count, the evaluation and the votes; the study's epsilon is the larger of the two
(`fedtwin_protocol.charges` lists what is paid).

A patient who is trained on at some of the m hospitals and held out at the others costs no more than
one who is the same at all: without sampling mu^2 = k^2 A + (m - k)^2 B is convex in k, so largest
at an end; with it the logarithm of each Rényi moment is (a log-sum-exp of functions convex in k).
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import fsum, inf, isfinite, sqrt
from typing import Any, Final

from fedtwin_protocol.charges import PlannedCharge, planned_charges, refuse_a_coarse_scale
from fedtwin_protocol.errors import PlanError
from fedtwin_protocol.privacy import gaussian_delta, gaussian_epsilon, with_lost_delta
from fedtwin_protocol.skellam import Skellam, lost_delta
from fedtwin_protocol.study import StudyPlan

# Width of the loss grid: fine where it is cheap, and coarser for long runs on samples.
FINE: Final = 1e-4
COARSE: Final = 1e-3
TOLERANCE: Final = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class MechanismPrice:
    """What one charge of a kind does to a patient.

    Attributes:
        kind: what is paid for.
        sigma: noise sd as a multiple of a patient's largest contribution, at all sites together.
        sampling_rate: chance that a patient takes part in a step.
        steps: noised steps in one charge.
        population: training, held_out or everyone.
        charges: how many the plan makes at most.
        hospitals: at how many sites one patient may have been seen.
        numbers: in one step's sum.
        sensitivity: largest change of the integers of a secure sum; 0: the noise is Gaussian.
        rdp: Rényi curve of one charge at the orders asked for.
    """

    kind: str
    sigma: float
    sampling_rate: float
    steps: int
    population: str
    charges: int
    hospitals: int
    numbers: int
    sensitivity: float
    rdp: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """What a whole study costs its worst patient.

    Attributes:
        epsilon: at the plan's delta, by PLD; infinite in mode `none`.
        epsilon_training: of a training patient.
        epsilon_held_out: of a held-out patient.
        mechanisms: one for each kind of charge.
    """

    epsilon: float
    epsilon_training: float
    epsilon_held_out: float
    mechanisms: tuple[MechanismPrice, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """So many noised steps on a Poisson sample of the patients.

    Attributes:
        sigma: noise sd as a multiple of a patient's largest contribution, at all sites together.
        sampling_rate: chance that a patient takes part in a step.
        steps: how many.
        hospitals: at how many sites the patient is, each of which draws its own sample.
        divergence: of one step from Gaussian noise (`fedtwin_protocol.skellam`).
    """

    sigma: float
    sampling_rate: float
    steps: int
    hospitals: int = 1
    divergence: float = 0.0


def price(plan: StudyPlan, orders: Sequence[float]) -> Price:
    """Recompute every privacy number of a plan.

    Args:
        plan: the plan.
        orders: Rényi orders that the curves are wanted at, each above 1.

    Raises:
        PlanError: the plan states a smaller epsilon than it costs, or rounds too coarsely.
    """
    privacy = plan.privacy
    refuse_a_coarse_scale(plan)
    charges = planned_charges(plan)
    protected = privacy.mode != "none"
    mechanisms = tuple(_mechanism(item, orders if protected else ()) for item in charges)
    if not protected:
        return Price(epsilon=inf, epsilon_training=inf, epsilon_held_out=inf, mechanisms=mechanisms)
    training = epsilon_for("training", charges, privacy.delta)
    held_out = epsilon_for("held_out", charges, privacy.delta)
    worst = max(training, held_out)
    if worst > privacy.epsilon * (1 + TOLERANCE):
        raise PlanError(
            f"the plan states epsilon {privacy.epsilon:g} at delta {privacy.delta:g}, but its "
            f"noise and its {plan.steps} steps cost a training patient {training:.4f} and a "
            f"held-out patient {held_out:.4f}, if seen at {privacy.hospitals_per_patient} "
            "hospitals: it needs more noise or fewer rounds"
        )
    return Price(
        epsilon=worst,
        epsilon_training=training,
        epsilon_held_out=held_out,
        mechanisms=mechanisms,
    )


def epsilon_for(population: str, charges: Iterable[PlannedCharge], delta: float) -> float:
    """Epsilon of a patient of one population, over everything that a plan may charge."""
    return epsilon_of(
        [
            Steps(
                sigma=item.sigma,
                sampling_rate=item.sampling_rate,
                steps=item.steps * item.charges,
                hospitals=item.hospitals,
                divergence=item.divergence,
            )
            for item in charges
            if item.population in {population, "everyone"}
        ],
        delta,
    )


def epsilon_of(taken: Iterable[Any], delta: float) -> float:
    """Epsilon of recorded steps: exact without sampling, and with it by PLD, never below the truth.

    A patient of m sites who is sampled at each by itself moves a step's sum by a binomial number of
    contributions. Split the noise into m equal parts: the sum is then a function of m releases, one
    a site, each with noise sigma / sqrt(m) on a sample of its own. That is an upper bound; the same
    steps with sigma / m, as if the sites drew together, are usually larger, though not for every
    delta. The larger of the two counts.

    Args:
        taken: values with the fields of `Steps` (or the ledger's).
        delta: the other half of the statement.
    """
    steps = [item for item in taken if item.steps > 0]
    if not steps:
        return 0.0
    divergence = fsum(item.steps * item.divergence for item in steps)
    accountants = [_accountant(history) for history in _histories(steps)]
    return with_lost_delta(
        lambda left: max(float(accountant.get_epsilon(left)) for accountant in accountants),
        delta,
        divergence,
    )


def deltas_of(taken: Iterable[Any], epsilons: Sequence[float]) -> list[float]:
    """Delta of recorded steps at each of some epsilons: the other way to read `epsilon_of`."""
    steps = [item for item in taken if item.steps > 0]
    divergence = fsum(item.steps * item.divergence for item in steps)
    accountants = [_accountant(history) for history in _histories(steps)] if steps else []
    found = []
    for epsilon in epsilons:
        delta = max((float(one.get_delta(epsilon)) for one in accountants), default=0.0)
        found.append(min(1.0, delta + lost_delta(divergence, epsilon)))
    return found


def _histories(steps: Iterable[Any]) -> set[tuple[tuple[float, float, int], ...]]:
    """The two ways to bound what a patient of several sites lost; one where they are the same."""
    steps = list(steps)
    together = tuple((item.sigma, item.sampling_rate, item.steps) for item in steps)
    return {together, tuple(_site_by_site(item) for item in steps)}


def _site_by_site(item: Any) -> tuple[float, float, int]:
    if item.sampling_rate == 1:
        return (item.sigma, item.sampling_rate, item.steps)
    return (item.sigma * sqrt(item.hospitals), item.sampling_rate, item.steps * item.hospitals)


class _Exact:
    """What steps on all patients cost: together one Gaussian release of `mu`."""

    def __init__(self, history: Iterable[tuple[float, float, int]]) -> None:
        parts = (steps / sigma**2 if sigma else inf for sigma, _, steps in history)
        self._mu = sqrt(fsum(parts))

    def get_epsilon(self, delta: float) -> float:
        """The smallest epsilon at a delta."""
        return gaussian_epsilon(self._mu, delta) if delta > 0 else inf

    def get_delta(self, epsilon: float) -> float:
        """The smallest delta at an epsilon."""
        return gaussian_delta(self._mu, epsilon)


def _accountant(history: Iterable[tuple[float, float, int]]) -> Any:
    history = list(history)
    if all(rate == 1 for _, rate, _ in history):
        return _Exact(history)
    import dp_accounting  # noqa: PLC0415 - a second to import
    from dp_accounting.pld import PLDAccountant  # noqa: PLC0415

    sampled = sum(steps for _, rate, steps in history if rate < 1)
    accountant = PLDAccountant(
        dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
        value_discretization_interval=COARSE if sampled > 100 else FINE,
    )
    for sigma, rate, steps in history:
        accountant.compose(_event(dp_accounting, sigma, rate), steps)
    return accountant


def _mechanism(item: PlannedCharge, orders: Sequence[float]) -> MechanismPrice:
    return MechanismPrice(
        kind=item.kind,
        sigma=item.sigma,
        sampling_rate=item.sampling_rate,
        steps=item.steps,
        population=item.population,
        charges=item.charges,
        hospitals=item.hospitals,
        numbers=item.numbers,
        sensitivity=item.sensitivity,
        rdp=charge_curve(item, orders) if orders else (),
    )


def charge_curve(item: PlannedCharge, orders: Sequence[float]) -> tuple[float, ...]:
    """Rényi curve of one charge: the larger, order by order, of the two bounds of `epsilon_of`."""

    def curve(sigma: float, steps: int, sensitivity: float) -> tuple[float, ...]:
        if not item.sensitivity:
            return rdp_curve(sigma, item.sampling_rate, steps, orders)
        noise = Skellam(sigma=sigma, numbers=item.numbers, sensitivity=sensitivity)
        return tuple(steps * noise.sampled(order, item.sampling_rate) for order in orders)

    together = curve(item.sigma, item.steps, item.sensitivity)
    if item.sampling_rate == 1 or item.hospitals == 1:
        return together
    sigma, _, steps = _site_by_site(item)
    apart = curve(sigma, steps, item.sensitivity / item.hospitals)
    return tuple(max(pair) for pair in zip(together, apart, strict=True))


def rdp_curve(
    sigma: float, sampling_rate: float, steps: int, orders: Sequence[float]
) -> tuple[float, ...]:
    """Rényi curve of Gaussian steps on Poisson samples, at the given orders.

    Without sampling it is order / (2 sigma^2) a step (Mironov 2017, arXiv 1702.07476, corollary 3),
    and sampling never makes it larger (quasi-convexity: van Erven and Harremoes 2014, arXiv
    1206.2459, theorem 13). dp-accounting's series does not converge at some fractional orders and
    leaves them infinite; the smaller of that bound and the value at the next higher order stands
    there instead, since the divergence does not fall with the order (theorem 3).
    """
    whole = tuple(steps * order / (2 * sigma * sigma) for order in orders)
    if sampling_rate == 1:
        return whole
    import dp_accounting  # noqa: PLC0415
    from dp_accounting.rdp import RdpAccountant  # noqa: PLC0415

    logging.getLogger("absl").setLevel(logging.ERROR)  # it tells of each such order
    accountant = RdpAccountant(list(orders))
    accountant.compose(_event(dp_accounting, sigma, sampling_rate), steps)
    curve = list(whole)
    above = inf
    for place in sorted(range(len(orders)), key=lambda place: -orders[place]):
        value = float(accountant._rdp[place])
        above = min(whole[place], value if isfinite(value) else above)
        curve[place] = above
    return tuple(curve)


def _event(dp_accounting: Any, sigma: float, sampling_rate: float) -> Any:
    gaussian = dp_accounting.GaussianDpEvent(sigma)
    if sampling_rate == 1:
        return gaussian
    return dp_accounting.PoissonSampledDpEvent(sampling_rate, gaussian)
