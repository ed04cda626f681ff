"""LiRA: was a patient among those a model learned from? The strongest known attack of its kind.

Carlini et al. 2022 (arXiv 2112.03570), algorithm 1 in its online form: many shadow models, each
learned from a random half of the same patients. For a patient and a model, the score is
phi = log(p / (1 - p)) with p the probability that the model gives the true outcome; over shadow
models phi is Gaussian, with one mean where the patient took part and another where not. The
likelihood ratio of the two is the attack. The variance is pooled over patients, as the authors do
where shadows are few (section VI-C). Every model is attacked in turn with all others as its
shadows, so that no work is wasted.
"""

from dataclasses import dataclass
from math import exp, log10
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedtwin_twins.audits.finding import Finding
from fedtwin_twins.audits.tails import Floats, normal_quantile, normal_tail

FALSE_POSITIVES: Final = 0.01
WORKS: Final = 0.6
"""Area under the curve without protection, below which the attack is too weak to show anything."""
Marks = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """How well members are told from others.

    Attributes:
        false_positives: shares of non-members that are taken for members, rising, (points,).
        true_positives: shares of members that are found, (points,).
        area: under the curve; one half is chance.
        members: how many memberships were judged.
    """

    false_positives: Floats
    true_positives: Floats
    area: float
    members: int

    def found_at(self, false_positives: float = FALSE_POSITIVES) -> float:
        """Share of members found where so many others are taken for members."""
        return float(np.interp(false_positives, self.false_positives, self.true_positives))


def random_halves(models: int, patients: int, seed: int) -> Marks:
    """Who takes part in which shadow model: each patient in exactly half of them.

    Returns:
        (models, patients)

    Raises:
        ValueError: fewer than four models.
    """
    if models < 4:
        raise ValueError(f"expected at least 4 shadow models, got {models}")
    generator = np.random.Generator(np.random.PCG64(seed))
    ranks = generator.random((models, patients)).argsort(axis=0)
    return np.asarray(ranks < models // 2)


def confidence(log_odds: Floats, outcomes: Floats) -> Floats:
    """phi: the log-odds that a model gives to each patient's true outcome, (models, patients)."""
    return np.asarray((2 * outcomes - 1) * log_odds, np.float64)


def attack(scores: Floats, taken: Marks) -> Curve:
    """Attack every model with the others as shadows.

    Args:
        scores: phi of every model for every patient, (models, patients).
        taken: who took part, (models, patients).

    Raises:
        ValueError: shapes differ, or a patient took part in fewer than two models or was left out
            of fewer than two.
    """
    if scores.shape != taken.shape or min(taken.sum(axis=0).min(), (~taken).sum(axis=0).min()) < 2:
        raise ValueError("expected scores and marks of one shape, each patient in and out twice")
    likelihood = np.zeros(scores.shape)
    for marks, sign in ((taken, 1.0), (~taken, -1.0)):
        mean, residual = _means_of_others(scores, marks)
        variance = float((residual[marks] ** 2).mean()) + 1e-300
        likelihood -= sign * ((scores - mean) ** 2 / variance + np.log(variance)) / 2
    return curve_of(likelihood[taken], likelihood[~taken])


def curve_of(members: Floats, others: Floats) -> Curve:
    """The curve of scores that should be higher for members."""
    scores = np.concatenate([members, others])
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.diff(scores[order]) != 0, True)  # ties are one point
    is_member = np.arange(scores.size) < members.size
    found = np.cumsum(is_member[order])[ends] / members.size
    wrong = np.cumsum(~is_member[order])[ends] / others.size
    true, false = np.append(0.0, found), np.append(0.0, wrong)
    area = float(((true[1:] + true[:-1]) / 2 * np.diff(false)).sum())
    return Curve(false_positives=false, true_positives=true, area=area, members=members.size)


def most_found(epsilon: float, delta: float, false_positives: float = FALSE_POSITIVES) -> float:
    """The share of members that (epsilon, delta)-privacy lets anybody find, at most.

    Kairouz, Oh and Viswanath 2015 (arXiv 1311.0776), theorem 2.1: TPR <= exp(epsilon) FPR + delta,
    and 1 - FPR <= exp(epsilon) (1 - TPR) + delta.
    """
    if epsilon > 50:
        return 1.0
    rising = exp(epsilon) * false_positives + delta
    falling = 1 - exp(-epsilon) * (1 - delta - false_positives)
    return min(1.0, rising, falling)


def most_found_gaussian(mu: float, false_positives: float = FALSE_POSITIVES) -> float:
    """The same for mu-Gaussian privacy (Dong, Roth and Su 2019, arXiv 1905.02383, equation 6)."""
    return normal_tail(-(mu + normal_quantile(false_positives)))


def membership_finding(private: Curve, unprotected: Curve, allowed: float, name: str) -> Finding:
    """LiRA as a finding: passed where no more members are found than privacy allows.

    Args:
        private: of models learned as the plan says.
        unprotected: of models learned from the same patients without clip and noise; it shows that
            the attack works.
        allowed: the largest true-positive rate at FALSE_POSITIVES.
        name: of the finding.
    """
    found, open_found = private.found_at(), unprotected.found_at()
    weak = "" if unprotected.area > WORKS else "; the attack finds nobody here and shows nothing"
    return Finding(
        name=name,
        asks="members are found by likelihood ratios (LiRA) where 1 % of others are taken for one",
        result=found,
        threshold=allowed,
        passed=found <= allowed,
        reading=(
            f"{found:.2%} of members found, area {private.area:.3f}, {private.members} "
            f"memberships; without protection {open_found:.1%}, area {unprotected.area:.3f}{weak}"
        ),
    )


def points_for_plot(curve: Curve, points: int = 60) -> list[tuple[float, float]]:
    """The curve at evenly spaced logarithms of the false-positive rate."""
    least = max(1e-4, 1 / max(curve.members, 1))
    rates = np.logspace(log10(least), 0, points)
    return [(float(rate), max(curve.found_at(float(rate)), 1e-5)) for rate in rates]


def _means_of_others(scores: Floats, marks: Marks) -> tuple[Floats, Floats]:
    """Mean over marked models without the one judged, and each score's distance from it."""
    total = (scores * marks).sum(axis=0)
    others = marks.sum(axis=0) - marks
    mean = np.asarray((total - scores * marks) / others, np.float64)
    return mean, scores - mean
