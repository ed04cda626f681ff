"""What a plan lets leave a site about patients, kind by kind, and with how much noise.

One row of `_rows` is one kind of message that patients pay for. Everything else that leaves follows
from the plan and from what was paid for. Both the check of a plan before it is signed and each
site's own accountant start from here.

A patient seen at m sites moves every sum m times as far, so a kind's noise counts as sigma / m; in
a secure sum the rounding counts too (`skellam`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, inf, log2, prod, sqrt
from typing import Final, NamedTuple

from fedtwin_protocol.charge_kinds import ChargeKind, Population
from fedtwin_protocol.errors import PlanError
from fedtwin_protocol.parameters import summed_shapes
from fedtwin_protocol.privacy import gaussian_epsilon, with_lost_delta
from fedtwin_protocol.skellam import (
    DIVERGENCE,
    SMALLEST_VARIANCE,
    divergence,
    effective_noise,
    largest_change,
    lost_delta,
)
from fedtwin_protocol.study import StudyPlan

LARGEST_SUM: Final = 2**28
"""Numbers in a sum of a model family whose parameters the plan does not fix."""
LOST_DELTA: Final = 0.1
"""Largest part of a plan's delta that rounding and Skellam noise may use up."""
LOST_NOISE: Final = 0.1
"""Largest part of the noise that rounding may use up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedCharge:
    """One kind of message that patients pay for.

    Attributes:
        kind: what is paid for.
        noise: the plan's noise sd, as a multiple of one patient's part at one site.
        sigma: noise sd as a multiple of the largest change that one patient makes, who may have
            been seen at several sites.
        sampling_rate: chance that a patient takes part in a step.
        steps: noised steps in one charge.
        population: which patients it touches.
        charges: how many the plan makes at most.
        hospitals: at how many sites one patient may have been seen.
        numbers: in one step's sum.
        sensitivity: largest change of the integers of a secure sum (Euclidean norm); 0: the noise
            is Gaussian, not Skellam.
    """

    kind: ChargeKind
    noise: float
    sigma: float
    sampling_rate: float
    steps: int
    population: Population
    charges: int
    hospitals: int
    numbers: int
    sensitivity: float

    @property
    def variance(self) -> float:
        """Of the noise of a secure sum, in integers; 0 for Gaussian noise."""
        return (self.sigma * self.sensitivity) ** 2

    @property
    def divergence(self) -> float:
        """Bound on the Kullback-Leibler divergence of one step from Gaussian noise."""
        return divergence(self.variance, self.numbers) if self.sensitivity else 0.0


class _Row(NamedTuple):
    kind: ChargeKind
    noise: float | None
    numbers: int
    sampling_rate: float
    steps: int
    population: Population
    charges: int
    summed: bool = True  # in mode `secure`; a vote leaves by itself, with the site's own noise


def _rows(plan: StudyPlan) -> list[_Row]:
    noise, rounds = plan.privacy, plan.training.rounds
    rate, steps, cells = noise.sampling_rate, plan.training.local_steps, 2 * plan.evaluation.bins
    numbers = parameter_count(plan)
    return [
        _Row("count", noise.cohort_count_noise, 1, 1.0, 1, "everyone", 1),
        _Row("train", noise.noise_multiplier, numbers, rate, steps, "training", rounds),
        _Row("evaluate", noise.evaluation_noise, cells, 1.0, 1, "held_out", 1),
        _Row("vote", noise.vote_noise, 1, 1.0, 1, "held_out", rounds, summed=False),
    ]


def planned_charges(plan: StudyPlan) -> tuple[PlannedCharge, ...]:
    """Every kind of message that patients pay for; kinds without a noise do not leave.

    Raises:
        PlanError: in mode `secure`, the number of parameters cannot be told from the plan.
    """
    hospitals, bits = plan.privacy.hospitals_per_patient, plan.privacy.scale_bits
    secure = plan.privacy.mode == "secure"
    return tuple(
        PlannedCharge(
            kind=row.kind,
            noise=row.noise,
            sigma=(
                effective_noise(row.noise, hospitals, row.numbers, bits)
                if secure and row.summed
                else row.noise / hospitals
            ),
            sampling_rate=row.sampling_rate,
            steps=row.steps,
            population=row.population,
            charges=row.charges,
            hospitals=hospitals,
            numbers=row.numbers,
            sensitivity=(
                largest_change(hospitals, row.numbers, bits) if secure and row.summed else 0.0
            ),
        )
        for row in _rows(plan)
        if row.noise is not None
    )


def parameter_count(plan: StudyPlan) -> int:
    """How many numbers a training sum holds.

    The families built in say it. Of any other, a plan fixes the initial parameters by hash alone,
    so the largest sum that a site takes part in stands for it; at 20 scale bits that counts as
    1.6 % less noise. Only mode `secure` depends on the number.

    Raises:
        PlanError: a built-in family with incomplete settings.
    """
    try:
        return sum(prod(shape) for shape in summed_shapes(plan).values())
    except PlanError:
        if plan.privacy.mode == "secure" and plan.model.initial_sha256 is None:
            raise
        return LARGEST_SUM


def full_batch_epsilon(
    charges: Iterable[PlannedCharge], population: Population, delta: float
) -> float:
    """Epsilon of a patient of one population, of charges without sampling: exact but for Skellam.

    Raises:
        ValueError: a charge samples patients.
    """
    touching = [item for item in charges if item.population in {population, "everyone"}]
    if any(item.sampling_rate < 1 for item in touching):
        raise ValueError("charges on sampled patients have no closed form")
    squared = sum(
        item.charges * item.steps / item.sigma**2 if item.sigma > 0 else inf for item in touching
    )
    lost = sum(item.charges * item.steps * item.divergence for item in touching)
    return with_lost_delta(lambda left: gaussian_epsilon(sqrt(squared), left), delta, lost)


def refuse_a_coarse_scale(plan: StudyPlan) -> None:
    """Refuse a plan whose secure sums are rounded too coarsely for its promise.

    Raises:
        PlanError: with the smallest scale_bits that would do.
    """
    if plan.privacy.mode != "secure":
        return
    bits, needed = plan.privacy.scale_bits, _bits_needed(plan)
    if bits < needed:
        most = " (40 is the most: lower the number of parameters or rounds)" if needed > 40 else ""
        raise PlanError(
            f"privacy.scale_bits {bits} rounds the sums too coarsely: rounding {_widest(plan)} "
            f"numbers and {plan.steps} steps of Skellam noise would use up more than "
            f"{LOST_DELTA:.0%} of delta {plan.privacy.delta:g} or of the noise; {needed} would "
            f"do{most}"
        )


def _bits_needed(plan: StudyPlan) -> int:
    every = planned_charges(plan)
    charges = [item for item in every if item.sensitivity]
    rounding = max(log2(sqrt(item.numbers) / LOST_NOISE) for item in charges)
    small = max(log2(sqrt(SMALLEST_VARIANCE) / item.noise) for item in charges)
    # The loss falls with the fourth power of the scale under the root: tau is const / 4^bits.
    at_one = sum(
        item.charges * item.steps * item.numbers * DIVERGENCE / item.noise**4 for item in charges
    )
    allowed = LOST_DELTA * plan.privacy.delta
    mu = sqrt(sum(item.charges * item.steps / item.sigma**2 for item in every))
    epsilon = min(plan.privacy.epsilon, gaussian_epsilon(mu, plan.privacy.delta - allowed))
    skellam = log2(lost_delta(at_one, epsilon) / allowed) / 2
    return ceil(max(rounding, small, skellam))


def _widest(plan: StudyPlan) -> int:
    return max(item.numbers for item in planned_charges(plan))
