"""Learning steps on one site's rows: what leaves is clipped, noised, and nothing else.

Guarantee: every array that `update` returns is a function of sums over patients in which one
patient moves by at most the clipping norm, each with Gaussian noise of noise_multiplier times that
norm (mode `local`); divisors are public: the cohort count that the site reported, not the true one.
`ClippedSum.exact` is such a sum before its noise: it stays at the site until a share of noise and a
mask are on it.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from fedtwin_client.training.contributions import GradientOf, SumOfPatients
from fedtwin_client.training.families import OF_LAYERS, gradient_of
from fedtwin_client.training.noise import Floats, NoiseSource, noised
from fedtwin_client.training.training_rows import TrainingRows
from fedtwin_protocol.parameters import flatten, unflatten
from fedtwin_protocol.payload import Array
from fedtwin_protocol.study import StudyPlan

Parameters = Mapping[str, Array]


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


class SummingLearner(Learner, Protocol):
    """A learner whose update is one sum over patients."""

    def exact(self, parameters: Parameters, noise: NoiseSource) -> SumOfPatients:
        """The site's exact clipped sum; it may not leave the site as it is."""


def make_learner(plan: StudyPlan, rows: TrainingRows) -> Learner:
    """The learner of a plan's mechanism."""
    if plan.training.summed:
        return summing_learner(plan, rows)
    return LocalSteps(plan, _as_computed(plan, rows), gradient_of(plan))


def summing_learner(plan: StudyPlan, rows: TrainingRows) -> SummingLearner:
    """The learner of a plan whose rounds are sums (`gradient_sum`, `mean_vector`)."""
    return ClippedSum(plan, _as_computed(plan, rows), gradient_of(plan))


def _as_computed(plan: StudyPlan, rows: TrainingRows) -> TrainingRows:
    return rows.single() if plan.model.family in OF_LAYERS else rows


class ClippedSum:
    """One sum over the training patients a round, each patient's part clipped."""

    def __init__(self, plan: StudyPlan, rows: TrainingRows, gradient: GradientOf) -> None:
        self._plan = plan
        self._rows = rows
        self._gradient = gradient

    def exact(self, parameters: Parameters, noise: NoiseSource) -> SumOfPatients:
        """The sum over this round's patients; one of them moves it by at most the clipping norm.

        Args:
            parameters: the round's model.
            noise: draws who takes part where the plan samples patients; nothing is added here.

        Returns:
            (values,), flat in the parameters' order.
        """
        rows = _sample(self._rows, self._plan.privacy.sampling_rate, noise)
        return self._gradient(rows, parameters)

    def update(
        self,
        parameters: Parameters,
        reported_count: float,
        noise: NoiseSource,
        proximal: float = 0.0,
    ) -> dict[str, Array]:
        """The noised sum, float64; the coordinator divides and steps."""
        del reported_count, proximal
        exact = self.exact(parameters, noise).astype(np.float64)
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
            patients = _sample(self._rows, rate, noise)
            exact = self._gradient(patients, unflatten(flat, parameters)).astype(np.float64)
            pull = decay * flat + proximal * (flat - start)
            step = noised(exact, noise_sd(plan), noise) / batch + pull
            flat = flat - plan.training.learning_rate * step
        return unflatten(flat, parameters)


def _sample(rows: TrainingRows, rate: float, noise: NoiseSource) -> TrainingRows:
    """A Poisson sample of the patients."""
    return rows if rate == 1 else rows.where(noise.chosen(len(rows), rate))


def noise_sd(plan: StudyPlan) -> float:
    """Standard deviation of the noise in each number of a sum; 0 in mode `none`."""
    if plan.privacy.mode == "none":
        return 0.0
    return plan.privacy.noise_multiplier * plan.privacy.clipping_norm


def _penalised(parameters: Parameters) -> Floats:
    """1 where the penalty applies, 0 at intercepts and biases, flat."""
    return np.concatenate(
        [
            np.full(array.size, 0.0 if name.endswith(("intercept", "bias")) else 1.0)
            for name, array in parameters.items()
        ]
    )
