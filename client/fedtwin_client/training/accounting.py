"""What a plan costs: epsilon by PLD accounting, and Rényi curves for the ledger's filter.

dp-accounting composes the privacy loss distributions (Google, "Connect the dots", arXiv 2207.04380)
pessimistically: the figure is never below the truth. Neighbouring data sets differ in one patient,
added or removed; sampling is Poisson. A training patient pays the cohort count and every round; a
held-out patient pays the count, a vote a round and the evaluation; the study's epsilon is the
larger of the two.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any, Final

from fedtwin_protocol.errors import PlanError
from fedtwin_protocol.study import StudyPlan

# Width of the loss grid: fine where it is cheap, and coarser for long runs on samples.
FINE: Final = 1e-4
COARSE: Final = 1e-3
TOLERANCE: Final = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class MechanismPrice:
    """What one charge of a kind does to a patient.

    Attributes:
        kind: count, train, vote or evaluate.
        sigma: noise sd as a multiple of a patient's largest contribution.
        sampling_rate: chance that a patient takes part in a step.
        steps: noised steps in one charge.
        population: training, held_out or everyone.
        charges: how many the plan makes at most.
        rdp: Rényi curve of one charge at the orders asked for.
    """

    kind: str
    sigma: float
    sampling_rate: float
    steps: int
    population: str
    charges: int
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
    """So many Gaussian steps with noise `sigma` on a Poisson sample of rate `sampling_rate`."""

    sigma: float
    sampling_rate: float
    steps: int


def price(plan: StudyPlan, orders: Sequence[float]) -> Price:
    """Recompute every privacy number of a plan.

    Args:
        plan: the plan.
        orders: Rényi orders that the curves are wanted at, each above 1.

    Raises:
        PlanError: the plan states a smaller epsilon than it costs.
    """
    privacy = plan.privacy
    kinds = [("count", privacy.cohort_count_noise, 1.0, 1, "everyone", 1)]
    rounds, steps = plan.training.rounds, plan.training.local_steps
    kinds.append(
        ("train", privacy.noise_multiplier, privacy.sampling_rate, steps, "training", rounds)
    )
    if privacy.vote_noise is not None:
        kinds.append(("vote", privacy.vote_noise, 1.0, 1, "held_out", rounds))
    if privacy.evaluation_noise is not None:
        kinds.append(("evaluate", privacy.evaluation_noise, 1.0, 1, "held_out", 1))
    protected = privacy.mode != "none"
    mechanisms = tuple(
        MechanismPrice(
            kind=kind,
            sigma=sigma,
            sampling_rate=rate,
            steps=count,
            population=population,
            charges=charges,
            rdp=rdp_curve(sigma, rate, count, orders) if protected else (),
        )
        for kind, sigma, rate, count, population, charges in kinds
    )
    if not protected:
        return Price(epsilon=inf, epsilon_training=inf, epsilon_held_out=inf, mechanisms=mechanisms)
    training = _epsilon_for("training", mechanisms, privacy.delta)
    held_out = _epsilon_for("held_out", mechanisms, privacy.delta)
    worst = max(training, held_out)
    if worst > privacy.epsilon * (1 + TOLERANCE):
        raise PlanError(
            f"the plan states epsilon {privacy.epsilon:g} at delta {privacy.delta:g}, but its "
            f"noise and its {plan.steps} steps cost a training patient {training:.4f} and a "
            f"held-out patient {held_out:.4f}: it needs more noise or fewer rounds"
        )
    return Price(
        epsilon=worst,
        epsilon_training=training,
        epsilon_held_out=held_out,
        mechanisms=mechanisms,
    )


def epsilon_of(taken: Iterable[Any], delta: float) -> float:
    """Epsilon of recorded steps, composed by PLD: never below the truth.

    Args:
        taken: values with `sigma`, `sampling_rate` and `steps` (`Steps`, or the ledger's).
        delta: the other half of the statement.
    """
    import dp_accounting  # noqa: PLC0415 - a second to import
    from dp_accounting.pld import PLDAccountant  # noqa: PLC0415

    steps = [item for item in taken if item.steps > 0]
    if not steps:
        return 0.0
    sampled = sum(item.steps for item in steps if item.sampling_rate < 1)
    accountant = PLDAccountant(
        dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
        value_discretization_interval=COARSE if sampled > 100 else FINE,
    )
    for item in steps:
        accountant.compose(_event(dp_accounting, item), item.steps)
    return float(accountant.get_epsilon(delta))


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
    item = Steps(sigma=sigma, sampling_rate=sampling_rate, steps=steps)
    accountant.compose(_event(dp_accounting, item), steps)
    curve = list(whole)
    above = inf
    for place in sorted(range(len(orders)), key=lambda place: -orders[place]):
        value = float(accountant._rdp[place])
        above = min(whole[place], value if isfinite(value) else above)
        curve[place] = above
    return tuple(curve)


def noise_multiplier_for(
    epsilon: float,
    delta: float,
    rounds: int,
    local_steps: int,
    sampling_rate: float,
    count_noise: float,
) -> float:
    """Noise for a plan on sampled patients, from above to four digits.

    Raises:
        PlanError: the cohort count alone costs more than epsilon.
    """
    count = Steps(sigma=count_noise, sampling_rate=1.0, steps=1)

    def cost(sigma: float) -> float:
        train = Steps(sigma=sigma, sampling_rate=sampling_rate, steps=rounds * local_steps)
        return epsilon_of([count, train], delta)

    if epsilon_of([count], delta) >= epsilon:
        raise PlanError(f"a cohort count with noise {count_noise:g} costs more than {epsilon:g}")
    low, high = 0.2, 1.0
    while cost(high) > epsilon:
        low, high = high, high * 2
    while high / low > 1.0002:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if cost(middle) > epsilon else (low, middle)
    return high


def _epsilon_for(population: str, mechanisms: Iterable[MechanismPrice], delta: float) -> float:
    steps = [
        Steps(
            sigma=item.sigma,
            sampling_rate=item.sampling_rate,
            steps=item.steps * item.charges,
        )
        for item in mechanisms
        if item.population in {population, "everyone"}
    ]
    return epsilon_of(steps, delta)


def _event(dp_accounting: Any, item: Any) -> Any:
    gaussian = dp_accounting.GaussianDpEvent(item.sigma)
    if item.sampling_rate == 1:
        return gaussian
    return dp_accounting.PoissonSampledDpEvent(item.sampling_rate, gaussian)
