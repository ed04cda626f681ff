"""Discrete-time hazards: risk by the horizon, the survival curve, and how well both order patients.

With intervals j = 1 .. J, patient's columns x, weights w and baseline intercepts b,

    h_j = 1 / (1 + exp(-(w . x + b_j))),  S_j = (1 - h_1) ... (1 - h_j),  risk = 1 - S_J

(Tutz and Schmid 2016, Modeling Discrete Time-to-Event Data, sections 3.1 and 3.2).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtwin_twins.risk import Given, logistic

Array = NDArray[np.float64]


def survival_curve(parameters: Mapping[str, Given], matrix: Given) -> Array:
    """Chance to be without the event at the end of each interval.

    Args:
        parameters: `weights` (columns,) and `baseline_intercept` (intervals,).
        matrix: encoded columns, shape (patients, columns).

    Returns:
        shape (patients, intervals).
    """
    scores = (matrix @ parameters["weights"])[:, None] + parameters["baseline_intercept"]
    return np.asarray(np.cumprod(logistic(-scores), axis=1), np.float64)


def risk_curve(parameters: Mapping[str, Given], matrix: Given) -> Array:
    """Chance to have had the event by the end of each interval; arguments as `survival_curve`.

    From log S = -sum_j log(1 + exp(score_j)), so that no small risk is lost.

    Returns:
        shape (patients, intervals).
    """
    return np.asarray(-np.expm1(np.cumsum(_log_kept(parameters, matrix), axis=1)), np.float64)


def risk_log_odds(parameters: Mapping[str, Given], matrix: Given) -> Array:
    """Log-odds of the event by the horizon, shape (patients,); arguments as `survival_curve`.

    Computed as `risk_curve`.
    """
    log_survival = _log_kept(parameters, matrix).sum(axis=1)
    return np.asarray(np.log(-np.expm1(log_survival)) - log_survival, np.float64)


def concordance(scores: Given, days: Given, events: Given) -> float:
    """Share of comparable pairs whose earlier event has the higher score; ties count half.

    A pair is comparable if one has the event, and the other is still in sight without it then
    (Harrell 1982, JAMA 247:2543): later days, or the same day out of sight.

    Args:
        scores: higher means earlier, shape (patients,).
        days: to the event or out of sight, shape (patients,).
        events: 1 where `days` ends with the event, shape (patients,).

    Returns:
        the share, or NaN where no pair is comparable.
    """
    pairs = right = 0.0
    for place in np.flatnonzero(events > 0.5):
        later = (days > days[place]) | ((days == days[place]) & (events < 0.5))
        pairs += later.sum()
        right += (scores[place] > scores[later]).sum() + 0.5 * (
            scores[place] == scores[later]
        ).sum()
    return float(right / pairs) if pairs else float("nan")


def known_at_horizon(days: Given, events: Given, horizon_days: float) -> NDArray[np.bool_]:
    """Whose state at the horizon is known: had the event, or was followed to it."""
    known: NDArray[Any] = (events > 0.5) | (days >= horizon_days)
    return np.asarray(known, np.bool_)


def _log_kept(parameters: Mapping[str, Given], matrix: Given) -> Array:
    """Logarithm of the chance to stay without the event in each interval, (patients, intervals)."""
    scores = (matrix @ parameters["weights"])[:, None] + parameters["baseline_intercept"]
    return np.asarray(-np.logaddexp(0.0, scores), np.float64)
