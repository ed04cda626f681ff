"""How long a sum of clipped, noised contributions can be; whatever is longer is an attack.

A patient contributes at most C (Euclidean norm), so the exact sum over n patients is no longer than
n C. Noise of sd s in each of d numbers adds, along the sum, more than t s with probability below
exp(-t^2 / 2), and across it more than s (sqrt(d) + t) with probability below exp(-t^2 / 2) (Laurent
and Massart 2000, lemma 1; Boucheron et al. 2013, theorem 5.6). The two are at right angles:

    longest = hypot(n C + t s, s (sqrt(d) + t))

With t = 6.5 an honest sum exceeds it with probability below 2e-9 (exp(-21.1) and a normal tail);
the number of patients is known through noise as well, of which 6 sd are allowed for (1e-9).

`usual_norm` is where a sum is shortened to, which changes no honest one: it is the length that n
patients reach only if they all pull one way, and the noise's own.
"""

from math import exp, hypot, isfinite, log, sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedtwin_protocol.errors import WireError
from fedtwin_protocol.study import StudyPlan

COUNT_SLACK: Final = 6.0
"""A normal variable exceeds so many standard deviations once in a billion draws."""
NOISE_SLACK: Final = 6.5
Numbers = NDArray[np.floating[Any]]


class RefusedSumError(WireError):
    """A round's sum is longer than its patients and its noise can make it: an attack."""


def longest_norm(values: int, patients: float, clipping_norm: float, noise_sd: float) -> float:
    """The norm that an honest sum does not exceed (see above).

    Args:
        values: numbers in the sum.
        patients: at most so many are in it.
        clipping_norm: of one patient's contribution.
        noise_sd: in each number of the sum.
    """
    along = patients * clipping_norm + NOISE_SLACK * noise_sd
    return hypot(along, noise_sd * (sqrt(values) + NOISE_SLACK))


def usual_norm(values: int, patients: float, clipping_norm: float, noise_sd: float) -> float:
    """The norm that a sum is shortened to; arguments as `longest_norm`."""
    return hypot(patients * clipping_norm, noise_sd * sqrt(values))


def most_patients(plan: StudyPlan, reported_count: float) -> float:
    """How many patients a site can have that reported so many, with its rounding."""
    return reported_count + COUNT_SLACK * plan.privacy.cohort_count_noise + 1


def site_noise_sd(plan: StudyPlan) -> float:
    """Sd of the noise in each number of one site's sum where that is sent by itself."""
    noised = plan.privacy.mode == "local"
    return plan.privacy.noise_multiplier * plan.privacy.clipping_norm if noised else 0.0


def longest_move(plan: StudyPlan, values: int, reported_count: float, start_norm: float) -> float:
    """How far the noised steps of a round can move a built-in family's parameters.

    In T steps on samples of rate q, a site of N patients sums at most T q N + sqrt(42 T q N) + 14
    contributions (Bernstein's inequality, beyond it with probability exp(-21)), and noise of sd
    s sqrt(T); each step divides by the reported count times q, and shrinks what was moved before
    unless learning rate times penalties exceeds 2.

    Args:
        plan: clipping norm, noise multiplier, learning rate, steps, penalties.
        values: numbers in the model.
        reported_count: the site's noised cohort count.
        start_norm: of the model that the round started from.
    """
    training, privacy, steps = plan.training, plan.privacy, plan.training.local_steps
    rate = privacy.sampling_rate
    batch = max(1.0, reported_count * rate)
    taken = steps * rate * most_patients(plan, reported_count)
    patients = taken if rate == 1 else taken + sqrt(42 * taken) + 14
    noise_sd = site_noise_sd(plan) * sqrt(steps)
    summed = longest_norm(values, patients, privacy.clipping_norm, noise_sd)
    pull = training.learning_rate * (plan.model.l2 + _proximal(plan))
    growth = exp(min(600.0, (steps - 1) * log(max(1.0, abs(1 - pull)))))
    drift = steps * training.learning_rate * plan.model.l2 * start_norm
    return growth * (training.learning_rate * summed / batch + drift)


def _proximal(plan: StudyPlan) -> float:
    """The pull towards the round's start that a plan's Flower strategy asks for (FedProx)."""
    options = plan.aggregation.options.items()
    return sum(float(value) for name, value in options if name.endswith("proximal_mu"))


def check_sum(
    total: Numbers, *, patients: float, clipping_norm: float, noise_sd: float, whose: str
) -> None:
    """Hold a decoded sum, of all sites or of a group, against what can be in it.

    Args:
        total: the sum, (values,).
        patients: at most so many are in it: the reported counts with their slack, or the largest
            cohorts that the plan admits.
        clipping_norm: of one patient's contribution, with whatever rounding adds to it.
        noise_sd: in each number of the sum, of all who took part.
        whose: whose sum it is, in words.

    Raises:
        RefusedSumError: it holds a number that is not finite, or is longer.
    """
    with np.errstate(all="ignore"):
        norm = float(np.linalg.norm(total))
    longest = longest_norm(total.size, patients, clipping_norm, noise_sd)
    if not isfinite(norm) or norm > longest:
        raise RefusedSumError(
            f"{whose} has the norm {norm:.4g}, and {patients:.0f} patients with the noise can make "
            f"at most {longest:.4g}: somebody sent what no patients can; the sum was thrown away "
            "and the last good model stays"
        )
