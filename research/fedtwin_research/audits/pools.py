"""Made-up patients for audits: columns and records that describe nobody, outcomes by a coin."""

from dataclasses import dataclass
from math import ceil, exp
from typing import Final

import numpy as np

from fedtwin_protocol.made_up import made_up_records, made_up_rows
from fedtwin_protocol.parameters import LINEAR
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.study_patients import LARGEST_VALUE
from fedtwin_research.audits.family import Floats, Marks
from fedtwin_twins.audits.membership import random_halves

_JUDGEMENTS: Final = 60_000
_MOST_LINEAR: Final = 1024
_MOST_NETWORKS: Final = 192


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """Patients of whom each model takes a part.

    Attributes:
        features: (patients, columns).
        outcomes: as in `Family.clipped_sums`.
        taken: who is in which model, (models, patients).
    """

    features: Floats
    outcomes: Floats
    taken: Marks


def overfitting_pool(plan: StudyPlan, seed: int) -> Pool:
    """A pool so small that a model without protection learns its coin flips by heart."""
    columns = made_inputs(plan, 1, seed).shape[1]
    patients = min(max(40, 4 * (columns + 1)), 1200)
    most = _MOST_LINEAR if plan.model.family in LINEAR else _MOST_NETWORKS
    models = min(max(64, _JUDGEMENTS // patients), most)
    generator = np.random.Generator(np.random.PCG64(seed + 1))
    return Pool(
        features=made_inputs(plan, patients, seed),
        outcomes=made_outcomes(plan, generator.random(patients) < 0.5),
        taken=random_halves(models, patients, seed + 2),
    )


def made_inputs(plan: StudyPlan, patients: int, seed: int) -> Floats:
    """What a model reads of made-up patients, (patients, inputs); of records, one of each."""
    columns = made_up_rows(plan.contract, patients, seed)
    if plan.sequence is None:
        return columns
    codes, numbers = made_up_records(plan.sequence, np.ones(patients, np.int64), seed + 7)
    words = np.arange(1, len(plan.sequence.vocabulary) + 1)
    return np.concatenate([columns, codes[:, :1] == words, numbers[:, 0]], axis=1)


def made_outcomes(plan: StudyPlan, coins: Marks) -> Floats:
    """Two outcomes by a coin, on both sides of what the plan's first model says.

    Yes or no; a value one scale above or below; no event, or twice as many as expected; the event
    in the first interval, or none by the horizon.

    Args:
        plan: the study.
        coins: (patients,).

    Returns:
        as in `Family.clipped_sums`.
    """
    endpoint, first = plan.endpoint, plan.model.initial_intercept
    if endpoint.kind == "value":
        return np.clip(np.where(coins, first + 1, first - 1), -LARGEST_VALUE, LARGEST_VALUE)
    if endpoint.kind == "count":
        return np.where(coins, float(min(endpoint.most, ceil(2 * exp(first)))), 0.0)
    if endpoint.kind == "time_to_event":
        days = np.where(coins, endpoint.interval_days[0], endpoint.horizon_days)
        return np.stack([days, coins], axis=1).astype(np.float64)
    return coins.astype(np.float64)
