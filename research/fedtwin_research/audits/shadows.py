"""Learning many models at once as a plan says, or without any protection.

One hospital holds all patients, which is the case with the least noise that the plan allows: its
sum carries the plan's noise once; so does a secure sum over any number of hospitals.

`gradient_sum`, `mean_vector`: theta' = theta - rate * v with v = momentum * v + (sum of clipped
contributions + noise) / (count * q) + l2 * theta, as the coordinator steps.
`local_steps`: theta' = theta - rate * ((sum over a Poisson sample + noise) / (count * q) +
l2 * theta), as a site steps; rounds are rounds of one site, whose mean is its own.
"""

import numpy as np

from fedtwin_protocol.parameters import flatten, initial_parameters
from fedtwin_protocol.study import StudyPlan
from fedtwin_research.audits.family import Family, Floats
from fedtwin_research.audits.pools import Pool


def learn_as_planned(
    plan: StudyPlan, family: Family, pool: Pool, seed: int, noised: bool = True
) -> Floats:
    """Learn every model of a pool with the plan's clip, noise and steps, (models, values).

    Args:
        plan: of a built-in family.
        family: the plan's.
        pool: the patients.
        seed: of the noise, which protects nobody here.
        noised: without it the clip alone is at work, and counts are exact.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    learner = _Learner(plan, family, pool, generator, noised and plan.privacy.mode != "none")
    start = flatten(initial_parameters(plan))
    models = np.tile(start, (len(pool.taken), 1))
    kept = np.zeros_like(models)
    average = plan.training.average_last
    for number in range(plan.training.rounds):
        models = learner.round(models)
        if number >= plan.training.rounds - average:
            kept += models
    return kept / average


def learn_openly(plan: StudyPlan, family: Family, pool: Pool) -> Floats:
    """Learn every model of a pool without clip and noise until it fits, (models, values)."""
    start = flatten(initial_parameters(plan))
    models = np.tile(start, (len(pool.taken), 1))
    return family.fit(models, pool.features, pool.outcomes, pool.taken)


class _Learner:
    """The state of learning as planned: counts, momentum, noise."""

    def __init__(
        self,
        plan: StudyPlan,
        family: Family,
        pool: Pool,
        generator: np.random.Generator,
        noised: bool,
    ) -> None:
        self._plan, self._family, self._pool, self._random = plan, family, pool, generator
        self._sd = plan.privacy.noise_multiplier * plan.privacy.clipping_norm if noised else 0.0
        counts = pool.taken.sum(axis=1, keepdims=True).astype(np.float64)
        if noised:
            counts += plan.privacy.cohort_count_noise * generator.standard_normal(counts.shape)
        self._counts = np.maximum(np.round(counts), plan.sites.smallest_cohort)
        self._velocity = np.zeros((len(pool.taken), family.penalised.size))

    def round(self, models: Floats) -> Floats:
        """The models after one round."""
        plan, decay = self._plan, self._plan.model.l2 * self._family.penalised
        rate = plan.training.learning_rate
        batch = self._counts * plan.privacy.sampling_rate
        if plan.training.summed:
            step = self._sum(models) / batch
            self._velocity = plan.training.momentum * self._velocity + step + decay * models
            return np.asarray(models - rate * self._velocity)
        for _ in range(plan.training.local_steps):
            step = self._sum(models) / np.maximum(1, batch)
            models = models - rate * (step + decay * models)
        return models

    def _sum(self, models: Floats) -> Floats:
        pool, privacy = self._pool, self._plan.privacy
        taken = pool.taken
        if privacy.sampling_rate < 1:
            taken = taken & (self._random.random(taken.shape) < privacy.sampling_rate)
        exact = self._family.clipped_sums(
            models, pool.features, pool.outcomes, taken, privacy.clipping_norm
        )
        return np.asarray(exact + self._sd * self._random.standard_normal(exact.shape))
