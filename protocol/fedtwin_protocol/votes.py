"""What a site's held-out patients say of a candidate model, as one number.

A patient with outcome y, given log-odds z by a model, loses L(z) = log(1 + exp(z)) - y z (natural
logarithm of the likelihood). The patient's word on a candidate is L(candidate) - L(last good
model), clipped to [-1, 1]; a candidate that gives no finite log-odds is worth 1, the worst. A
site's vote is the sum over its held-out patients, plus Gaussian noise of sd `privacy.vote_noise`.

One patient, added or removed, moves the sum by at most 1: that is the sensitivity, whatever the
record and whatever the models. A positive vote says that patients are worse off. The logarithm is
clipped at 1 because a model that was turned around costs most patients about so much; the Brier
score would give them a third of it, and the noise is the same.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FEWEST_VOTERS: Final = 3
"""Of two votes that differ, nobody can tell which one is the liar's."""
VOTE: Final = "vote"
"""The metric that carries a vote."""
VOTE_TASK: Final = "query.vote"
"""The kind of task that asks for one."""
GOOD: Final = "good"
"""The record with the last good model, beside the candidate's record `arrays`."""

Numbers = NDArray[np.floating[Any]]


def exact_vote(candidate: Numbers, good: Numbers, outcomes: Numbers) -> float:
    """The exact sum over held-out patients; it needs noise before it may leave a site.

    Args:
        candidate: log-odds by the candidate, (patients,).
        good: log-odds by the last good model, (patients,).
        outcomes: 0 or 1, (patients,).

    Returns:
        between minus and plus the number of patients; 0 without patients.
    """
    with np.errstate(all="ignore"):
        change = _loss(candidate, outcomes) - _loss(good, outcomes)
    worst = np.where(np.isfinite(candidate), change, 1.0)
    return float(np.clip(np.nan_to_num(worst, nan=0.0, posinf=1.0, neginf=-1.0), -1.0, 1.0).sum())


def _loss(log_odds: Numbers, outcomes: Numbers) -> NDArray[np.float64]:
    scores = np.asarray(log_odds, np.float64)
    return np.asarray(np.logaddexp(0.0, scores) - outcomes * scores, np.float64)
