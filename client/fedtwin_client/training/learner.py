"""Learning steps on one site's rows: what leaves is clipped, noised, and nothing else.

Guarantee: every array that `GradientSum` or `LocalSteps` returns is a function of sums over
patients in which one patient moves by at most the clipping norm, each with Gaussian noise of
noise_multiplier times that norm (mode `local`); divisors are public: the cohort count that the site
reported, never the true one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fedtwin_client.training.gradients import clipped_gradient_sum
from fedtwin_client.training.noise import Floats, NoiseSource, noised
from fedtwin_protocol.parameters import flatten, unflatten
from fedtwin_protocol.payload import Array
from fedtwin_protocol.study import StudyPlan

Parameters = Mapping[str, Array]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRows:
    """A site's training patients.

    Attributes:
        features: (patients, columns), encoded by the feature contract.
        outcomes: 0 or 1, (patients,).
    """

    features: Floats
    outcomes: Floats


class Learner(Protocol):
    """Makes a site's update of one round."""

    def update(
        self,
        parameters: Parameters,
        reported_count: float,
        noise: NoiseSource,
        proximal: float = 0.0,
    ) -> dict[str, Array]:
        """Arrays that may leave the site."""


def make_learner(plan: StudyPlan, rows: TrainingRows) -> Learner:
    """The learner of a plan's mechanism."""
    gradient = _gradient(plan)
    if plan.training.mechanism == "gradient_sum":
        return GradientSum(plan, rows, gradient)
    return LocalSteps(plan, rows, gradient)


class GradientOf(Protocol):
    """The sum of clipped per-patient gradients of a model family."""

    def __call__(self, features: Floats, outcomes: Floats, parameters: Parameters) -> Floats:
        """(values,), in the parameters' order."""


class GradientSum:
    """One noised sum over all training patients a round."""

    def __init__(self, plan: StudyPlan, rows: TrainingRows, gradient: GradientOf) -> None:
        self._plan = plan
        self._rows = rows
        self._gradient = gradient

    def update(
        self,
        parameters: Parameters,
        reported_count: float,
        noise: NoiseSource,
        proximal: float = 0.0,
    ) -> dict[str, Array]:
        """The noised sum, float64; the coordinator divides and steps."""
        del reported_count, proximal
        exact = self._gradient(self._rows.features, self._rows.outcomes, parameters)
        return {"gradient_sum": noised(exact, noise_sd(self._plan), noise)}


class LocalSteps:
    """Several noised steps at the site a round, each on a Poisson sample of the patients."""

    def __init__(self, plan: StudyPlan, rows: TrainingRows, gradient: GradientOf) -> None:
        self._plan = plan
        self._rows = rows
        self._gradient = gradient

    def update(
        self,
        parameters: Parameters,
        reported_count: float,
        noise: NoiseSource,
        proximal: float = 0.0,
    ) -> dict[str, Array]:
        """The parameters after the round's steps.

        `proximal` pulls each step back to where the round began (FedProx, Li et al. 2020, arXiv
        1812.06127, equation 2); it needs no data.
        """
        plan = self._plan
        rate = plan.privacy.sampling_rate
        batch = max(1.0, reported_count * rate)
        decay = plan.model.l2 * _penalised(parameters)
        flat = start = flatten(parameters)
        for _ in range(plan.training.local_steps):
            features, outcomes = self._sample(rate, noise)
            exact = self._gradient(features, outcomes, unflatten(flat, parameters))
            pull = decay * flat + proximal * (flat - start)
            step = noised(exact, noise_sd(plan), noise) / batch + pull
            flat = flat - plan.training.learning_rate * step
        return unflatten(flat, parameters)

    def _sample(self, rate: float, noise: NoiseSource) -> tuple[Floats, Floats]:
        rows = self._rows
        if rate == 1:
            return rows.features, rows.outcomes
        chosen = noise.chosen(len(rows.outcomes), rate)
        return rows.features[chosen], rows.outcomes[chosen]


def noise_sd(plan: StudyPlan) -> float:
    """Standard deviation of the noise in each number of a sum; 0 in mode `none`."""
    if plan.privacy.mode == "none":
        return 0.0
    return plan.privacy.noise_multiplier * plan.privacy.clipping_norm


def _gradient(plan: StudyPlan) -> GradientOf:
    clipping_norm = plan.privacy.clipping_norm
    if plan.model.family == "network":
        from fedtwin_client.training.network import NetworkGradient  # noqa: PLC0415 - torch

        return NetworkGradient(clipping_norm)

    def logistic_gradient(features: Floats, outcomes: Floats, parameters: Parameters) -> Floats:
        return clipped_gradient_sum(features, outcomes, flatten(parameters), clipping_norm)

    return logistic_gradient


def _penalised(parameters: Parameters) -> Floats:
    """1 where the penalty applies, 0 at intercepts and biases, flat."""
    return np.concatenate(
        [
            np.full(array.size, 0.0 if name.endswith(("intercept", "bias")) else 1.0)
            for name, array in parameters.items()
        ]
    )
