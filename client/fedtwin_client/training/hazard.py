"""Sums of clipped per-patient gradients of a discrete-time hazard, in closed form.

With intervals j that end at the plan's days, a patient with columns x who is at risk in interval j
has the event there with chance h_j = 1 / (1 + exp(-(w . x + b_j))). A patient's loss is the sum
over the intervals in which they were at risk to the end, or had the event, of the Bernoulli loss
(Brown 1975, Biometrics 31:863; Tutz and Schmid 2016, Modeling Discrete Time-to-Event Data, section
3.4). It is separable over patients, unlike a partial likelihood, so each patient's gradient

    (s x, h - y),  s = sum_j (h_j - y_j)

is clipped as a whole: its norm is sqrt(s^2 |x|^2 + |h - y|^2). A gradient that is not finite is
zeroed.
"""

from collections.abc import Sequence

import numpy as np

from fedtwin_client.training.noise import Floats
from fedtwin_twins.risk import logistic


def person_intervals(
    days: Floats, outcomes: Floats, interval_days: Sequence[int]
) -> tuple[Floats, Floats]:
    """Where each patient was at risk, and where the event was.

    An interval in which a patient is lost from sight before its end tells nothing and is left out.

    Args:
        days: (patients,) above 0, to the event or out of sight.
        outcomes: (patients,) 1 where `days` ends with the event.
        interval_days: where the intervals end; they hold their end and not their beginning.

    Returns:
        two arrays of 0 and 1, (patients, intervals): at risk, event.
    """
    ends = np.asarray(interval_days, np.float64)
    starts = np.concatenate([[0.0], ends[:-1]])
    within = (days[:, None] > starts) & (days[:, None] <= ends)
    event = within & (outcomes[:, None] > 0.5)
    at_risk = event | (days[:, None] >= ends)
    return at_risk.astype(np.float64), event.astype(np.float64)


def clipped_hazard_sum(
    features: Floats,
    at_risk: Floats,
    event: Floats,
    weights: Floats,
    clipping_norm: float,
) -> Floats:
    """The sum over patients of their clipped gradients.

    Args:
        features: (patients, columns).
        at_risk: (patients, intervals).
        event: (patients, intervals).
        weights: columns, then the intervals' intercepts, (columns + intervals,).
        clipping_norm: largest Euclidean norm of a patient's contribution.

    Returns:
        (columns + intervals,)
    """
    columns = features.shape[1]
    with np.errstate(all="ignore"):
        scores = (features @ weights[:columns])[:, None] + weights[columns:]
        error = at_risk * logistic(scores) - event
        total = error.sum(axis=1)
        squares = total**2 * np.einsum("ij,ij->i", features, features)
        norms = np.sqrt(squares + np.einsum("ij,ij->i", error, error))
        scale = np.minimum(1.0, clipping_norm / np.maximum(norms, 1e-300))
    sound = np.isfinite(norms)
    scale = np.where(sound, scale, 0.0)
    if not sound.all():
        features = np.where(sound[:, None], features, 0.0)
        error = np.where(sound[:, None], error, 0.0)
        total = np.where(sound, total, 0.0)
    return np.concatenate([(scale * total) @ features, scale @ error])
