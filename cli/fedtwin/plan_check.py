"""What a plan costs, before it is signed: the arithmetic that every site repeats by itself.

Plans in which every patient takes part in every step are priced in plain arithmetic
(`fedtwin_protocol.privacy`). Plans that sample patients need the accountant of the node, which
comes with the extra `client`; the coordinator itself never loads it.
"""

from dataclasses import dataclass
from math import ceil, inf, isfinite, sqrt

from fedtwin_protocol.errors import PlanError
from fedtwin_protocol.privacy import (
    UPWARD,
    full_batch_mu,
    gaussian_epsilon,
    gaussian_mu,
    noise_multiplier_for,
)
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.study_privacy import Privacy

TOLERANCE = 1e-3


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
        PlanError: it samples patients, and the accountant is not installed here.
    """
    privacy = plan.privacy
    if privacy.mode == "none":
        return Cost(training=inf, held_out=inf)
    return Cost(
        training=_training_epsilon(plan),
        held_out=gaussian_epsilon(sqrt(_held_out_mu_square(plan)), privacy.delta),
    )


def _held_out_mu_square(plan: StudyPlan, *, table: bool = True, votes: bool = True) -> float:
    """Square of mu of what a held-out patient pays: the count, and the table and votes bought."""
    privacy = plan.privacy
    square = full_batch_mu(0, 1.0, privacy.cohort_count_noise) ** 2
    if table and privacy.evaluation_noise is not None:
        square += full_batch_mu(1, privacy.evaluation_noise) ** 2
    if votes and privacy.vote_noise is not None:
        square += full_batch_mu(plan.training.rounds, privacy.vote_noise) ** 2
    return square


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
    lines = [
        f"stated: epsilon {privacy.epsilon:g} at delta {privacy.delta:g}",
        f"cost to a patient who is trained on: epsilon {cost.training:.4f} "
        f"({plan.steps} noised steps and the count)",
        f"cost to a patient who is held out: epsilon {cost.held_out:.4f} "
        + f"({_held_out_pays(privacy)})",
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
            f"{cost.training:.4g}, not {privacy.epsilon:g}: {_enough_for_training(plan)}"
        )
    if cost.held_out > stated:
        lines.append(_mend_held_out(plan, cost))
    return lines


def _held_out_pays(privacy: Privacy) -> str:
    items = ["the table"] if privacy.evaluation_noise is not None else []
    items += ["a vote a round"] if privacy.vote_noise is not None else []
    return " and ".join([", ".join(items), "the count"] if items else ["the count"])


def _mend_held_out(plan: StudyPlan, cost: Cost) -> str:
    """The dearest of what a held-out patient pays, and how much noise would do for it."""
    privacy = plan.privacy
    prices = {
        "privacy.cohort_count_noise": (privacy.cohort_count_noise, 1),
        "privacy.evaluation_noise": (privacy.evaluation_noise, 1),
        "privacy.vote_noise": (privacy.vote_noise, plan.training.rounds),
    }
    bought = {name: (noise, times) for name, (noise, times) in prices.items() if noise is not None}
    what = max(bought, key=lambda name: bought[name][1] / bought[name][0] ** 2)
    if what == "privacy.cohort_count_noise":
        what = next((name for name in bought if name != what), what)
    noise, times = bought[what]
    rest = _held_out_mu_square(
        plan, table=what != "privacy.evaluation_noise", votes=what != "privacy.vote_noise"
    )
    left = gaussian_mu(privacy.epsilon, privacy.delta) ** 2 - rest
    if what == "privacy.cohort_count_noise":
        left += privacy.cohort_count_noise**-2
    enough = _not_enough_left(privacy) if left <= 0 else f"{_rounded(times, left):g} would do"
    return (
        f"  {what} {noise:g} makes epsilon {cost.held_out:.4g} for held-out patients, not "
        f"{privacy.epsilon:g}: {enough}"
    )


def _rounded(times: int, left: float) -> float:
    return _rounded_up(UPWARD * sqrt(times / left))


def _not_enough_left(privacy: Privacy) -> str:
    if privacy.vote_noise is None or privacy.evaluation_noise is None:
        return _count_is_too_dear(privacy)
    return "the others alone cost more; raise them first"


def _training_epsilon(plan: StudyPlan) -> float:
    privacy = plan.privacy
    if not _samples(plan):
        mu = full_batch_mu(plan.steps, privacy.noise_multiplier, privacy.cohort_count_noise)
        return gaussian_epsilon(mu, privacy.delta)
    if not _accountant_is_here():
        raise PlanError(
            f"the plan {plan.study} samples patients (privacy.sampling_rate "
            f"{privacy.sampling_rate:g}): its cost is computed where the node's software is "
            "installed, pip install 'fedtwin[client]'"
        )
    from fedtwin_client.training.accounting import Steps, epsilon_of

    count = Steps(sigma=privacy.cohort_count_noise, sampling_rate=1.0, steps=1)
    train = Steps(
        sigma=privacy.noise_multiplier, sampling_rate=privacy.sampling_rate, steps=plan.steps
    )
    return epsilon_of([count, train], privacy.delta)


def _enough_for_training(plan: StudyPlan) -> str:
    privacy = plan.privacy
    count = privacy.cohort_count_noise
    try:
        if _samples(plan):
            from fedtwin_client.training.accounting import noise_multiplier_for as for_samples

            training = plan.training
            enough = for_samples(
                privacy.epsilon,
                privacy.delta,
                training.rounds,
                training.local_steps,
                privacy.sampling_rate,
                count,
            )
        else:
            enough = noise_multiplier_for(privacy.epsilon, privacy.delta, plan.steps, count)
    except (ValueError, PlanError):
        return _count_is_too_dear(privacy)
    return f"{_rounded_up(enough):g} would do"


def _count_is_too_dear(privacy: Privacy) -> str:
    noise = privacy.cohort_count_noise
    return f"privacy.cohort_count_noise {noise:g} alone costs more; raise it first"


def _rounded_up(value: float) -> float:
    """Up in the fourth digit, so that what is written in a plan is enough."""
    digits: float = 10.0 ** (3 - int(f"{value:e}".partition("e")[2]))
    return ceil(value * digits) / digits if isfinite(value) else value


def _samples(plan: StudyPlan) -> bool:
    return plan.privacy.sampling_rate < 1


def _accountant_is_here() -> bool:
    from importlib.util import find_spec

    return find_spec("dp_accounting") is not None
