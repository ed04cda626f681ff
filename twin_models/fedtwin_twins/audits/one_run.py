"""A formal lower bound on epsilon from one training run with canaries.

Steinke, Nasr and Jagielski 2023 (arXiv 2305.08846): each of m canaries is put in or left out by a
fair coin; the auditor sees the output and guesses r of the coins. If v guesses are right, then for
an (epsilon, delta)-private run, by theorem 5.2 (and the program in appendix D),

    P[V >= v] <= beta + 2 m delta alpha,   beta = P[B >= v],
    alpha = max over i of P[v > B >= v - i] / i,   B ~ Binomial(r, e^epsilon / (1 + e^epsilon)).

The largest epsilon at which the right side stays below 1 - confidence is the bound.
"""

from math import exp
from typing import Final

import numpy as np

from fedtwin_twins.audits.finding import Finding
from fedtwin_twins.audits.tails import Floats, binomial_chances, normal_tail

CONFIDENCE: Final = 0.95
_MOST_EPSILON: Final = 50.0


def chance_of_guesses(
    canaries: int, guesses: int, right: int, epsilon: float, delta: float
) -> float:
    """Bound on the chance of so many right guesses if the run were (epsilon, delta)-private."""
    chances = binomial_chances(guesses, 1 / (1 + exp(-epsilon)))
    beta = float(chances[right:].sum())
    below = np.cumsum(chances[:right][::-1]) / np.arange(1, right + 1)
    alpha = float(below.max()) if right else 0.0
    return min(1.0, beta + 2 * canaries * delta * alpha)


def epsilon_bound(canaries: int, guesses: int, right: int, delta: float) -> float:
    """The epsilon that a run with so many right guesses has at least, with CONFIDENCE.

    Raises:
        ValueError: not right <= guesses <= canaries.
    """
    if not 0 <= right <= guesses <= canaries:
        raise ValueError(f"expected {right} right <= {guesses} guesses <= {canaries} canaries")
    low, high = 0.0, _MOST_EPSILON
    if chance_of_guesses(canaries, guesses, right, 0.0, delta) > 1 - CONFIDENCE:
        return 0.0
    for _ in range(60):
        middle = (low + high) / 2
        refuted = chance_of_guesses(canaries, guesses, right, middle, delta) <= 1 - CONFIDENCE
        low, high = (middle, high) if refuted else (low, middle)
    return low


def best_guesses(canaries: int, mu: float, delta: float) -> int:
    """How many coins to guess, chosen before the run from the claim alone.

    With Gaussian scores whose means lie mu apart, guessing the outermost share of canaries is right
    as often as the tails say; the share that would give the largest bound is taken.
    """
    best, chosen = -1.0, canaries
    for share in (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0):
        guesses = max(2, int(canaries * share) // 2 * 2)
        cut = _cut(mu, share / 2)
        right = normal_tail(cut - mu / 2) / (normal_tail(cut - mu / 2) + normal_tail(cut + mu / 2))
        bound = epsilon_bound(canaries, guesses, int(right * guesses), delta)
        if bound > best:
            best, chosen = bound, guesses
    return chosen


def right_guesses(scores: Floats, taken: Floats, guesses: int) -> int:
    """Guess the highest scores to be in and the lowest out; how many guesses are right.

    Args:
        scores: (canaries,), higher where a canary seems to be in.
        taken: 1 where it was, 0 where not, (canaries,).
        guesses: even; half of them at each end.
    """
    order = np.argsort(scores, kind="stable")
    half = guesses // 2
    out, into = order[:half], order[scores.size - half :]
    return int((taken[out] == 0).sum() + (taken[into] == 1).sum())


def one_run_finding(
    bound: float, epsilon: float, canaries: int, guesses: int, right: int
) -> Finding:
    """The bound as a finding: it can refute the stated epsilon, and never confirm it."""
    return Finding(
        name="one-run-bound",
        asks=(
            f"the lower bound on epsilon ({CONFIDENCE:.0%} confidence) from one run with canaries "
            "is below the stated epsilon"
        ),
        result=bound,
        threshold=epsilon,
        passed=bound <= epsilon,
        reading=(
            f"epsilon is at least {bound:.2f}: {right} of {guesses} guesses right, {canaries} "
            f"canaries; stated {epsilon:g}"
        ),
    )


def _cut(mu: float, share: float) -> float:
    """Where a share of the mixture of both score distributions lies above."""
    low, high = -20.0, 20.0 + mu
    for _ in range(100):
        middle = (low + high) / 2
        above = (normal_tail(middle - mu / 2) + normal_tail(middle + mu / 2)) / 2
        low, high = (middle, high) if above > share else (low, middle)
    return (low + high) / 2
