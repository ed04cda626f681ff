"""What a plan costs, before it is signed: the arithmetic that every site repeats by itself.

Plans in which every patient takes part in every step are priced in plain arithmetic
(`fedtwin_protocol.privacy`). Plans that sample patients need the accountant of the node, which
comes with the extra `client`; the coordinator itself never loads it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, inf, isfinite, sqrt

from fedtwin_protocol.charge_kinds import Population
from fedtwin_protocol.charges import (
    PlannedCharge,
    full_batch_epsilon,
    planned_charges,
    refuse_a_coarse_scale,
)
from fedtwin_protocol.errors import PlanError
from fedtwin_protocol.study import StudyPlan

TOLERANCE = 1e-3
MOST_NOISE = 1e6


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a plan costs a patient of one site, at the plan's delta.

    Attributes:
        training: epsilon of a patient who is trained on.
        held_out: epsilon of a patient who is held out.
    """

    training: float
    held_out: float


def cost_of(plan: StudyPlan) -> Cost:
    """Price a plan; infinite in mode `none`.

    Raises:
        PlanError: it samples patients, and the accountant is not installed here; or it rounds
            secure sums too coarsely.
    """
    if plan.privacy.mode == "none":
        return Cost(training=inf, held_out=inf)
    refuse_a_coarse_scale(plan)
    return Cost(training=_epsilon(plan, "training"), held_out=_epsilon(plan, "held_out"))


def adds_up(plan: StudyPlan, cost: Cost) -> bool:
    """Whether the plan's epsilon is what it costs, or more."""
    stated = plan.privacy.epsilon * (1 + TOLERANCE)
    return plan.privacy.mode == "none" or max(cost.training, cost.held_out) <= stated


def refuse_what_does_not_add_up(plan: StudyPlan) -> None:
    """Refuse a plan that every site would refuse, as far as it can be priced here.

    Raises:
        PlanError: it states less than it costs; with the noise that would do.
    """
    if _samples(plan) and not _accountant_is_here():
        return
    cost = cost_of(plan)
    if not adds_up(plan, cost):
        raise PlanError(f"the plan {plan.study} does not add up:\n" + "\n".join(mend(plan, cost)))


def cost_lines(plan: StudyPlan, cost: Cost) -> list[str]:
    """The cost in words, and whether it is what the plan states."""
    privacy = plan.privacy
    if privacy.mode == "none":
        return ["mode 'none': no privacy is promised, whatever epsilon the plan states"]
    charges, many = planned_charges(plan), privacy.hospitals_per_patient
    lines = [
        f"stated: epsilon {privacy.epsilon:g} at delta {privacy.delta:g}, for a patient seen at "
        + (f"up to {many} of the hospitals" if many > 1 else "one hospital only"),
        f"cost to a patient who is trained on: epsilon {cost.training:.4f} "
        f"({_in_words(charges, 'training')})",
        f"cost to a patient who is held out: epsilon {cost.held_out:.4f} "
        f"({_in_words(charges, 'held_out')})",
    ]
    if adds_up(plan, cost):
        return [*lines, "the plan adds up"]
    return [*lines, "the plan does not add up:", *mend(plan, cost)]


def mend(plan: StudyPlan, cost: Cost) -> list[str]:
    """What would make a plan add up: more noise, line by line."""
    privacy = plan.privacy
    stated = privacy.epsilon * (1 + TOLERANCE)
    lines = []
    if cost.training > stated:
        lines.append(
            f"  privacy.noise_multiplier {privacy.noise_multiplier:g} makes epsilon "
            f"{cost.training:.4g}, not {privacy.epsilon:g}: "
            f"{_enough(plan, 'noise_multiplier', 'training')}"
        )
    if cost.held_out > stated:
        fields = ("evaluation_noise", "vote_noise", "cohort_count_noise")
        field = next(name for name in fields if getattr(privacy, name) is not None)
        lines.append(
            f"  privacy.{field} {getattr(privacy, field):g} makes epsilon {cost.held_out:.4g} for "
            f"held-out patients, not {privacy.epsilon:g}: {_enough(plan, field, 'held_out')}"
        )
    return lines


def _epsilon(plan: StudyPlan, population: Population) -> float:
    charges, delta = planned_charges(plan), plan.privacy.delta
    if population == "held_out" or not _samples(plan):
        return full_batch_epsilon(charges, population, delta)
    if not _accountant_is_here():
        raise PlanError(
            f"the plan {plan.study} samples patients (privacy.sampling_rate "
            f"{plan.privacy.sampling_rate:g}): its cost is computed where the node's software is "
            "installed, pip install 'fedtwin[client]'"
        )
    from fedtwin_client.training.accounting import epsilon_for

    return epsilon_for(population, charges, delta)


def _enough(plan: StudyPlan, field: str, population: Population) -> str:
    """The smallest value of a noise at which a population's epsilon is the stated one."""

    def too_dear(noise: float) -> bool:
        changed = plan.model_copy(
            update={"privacy": plan.privacy.model_copy(update={field: noise})}
        )
        return _epsilon(changed, population) > plan.privacy.epsilon

    low, high = 0.01, MOST_NOISE
    if too_dear(high):
        other = "evaluation_noise" if field == "vote_noise" else "cohort_count_noise"
        if field == "evaluation_noise" and plan.privacy.vote_noise is not None:
            other = "vote_noise"
        return f"privacy.{other} {getattr(plan.privacy, other):g} alone costs more; raise it first"
    while high / low > 1.0002:
        middle = sqrt(low * high)
        low, high = (middle, high) if too_dear(middle) else (low, middle)
    return f"{_rounded_up(high):g} would do"


def _in_words(charges: Iterable[PlannedCharge], population: Population) -> str:
    names = {
        "count": "the count",
        "train": "{} noised steps",
        "evaluate": "the table",
        "vote": "{} votes",
    }
    return ", ".join(
        names[item.kind].format(item.charges * item.steps)
        for item in charges
        if item.population in {population, "everyone"}
    )


def _rounded_up(value: float) -> float:
    """Up in the fourth digit, so that what is written in a plan is enough."""
    digits: float = 10.0 ** (3 - int(f"{value:e}".partition("e")[2]))
    return ceil(value * digits) / digits if isfinite(value) else value


def _samples(plan: StudyPlan) -> bool:
    return plan.privacy.sampling_rate < 1


def _accountant_is_here() -> bool:
    from importlib.util import find_spec

    return find_spec("dp_accounting") is not None
